// The program of node-postgres: a client, its pool, cursors and COPY streams.
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import pg from 'pg'
import Cursor from 'pg-cursor'
import { from, to } from 'pg-copy-streams'
import * as c from './checks.mjs'
import { check, equal, none, throws } from './checks.mjs'

const options = (more = {}) => ({ host: c.host, port: c.port, user: c.user, password: c.password, database: c.database, ssl: c.tls, ...more })
const client = new pg.Client(options())
client.on('error', (e) => console.error('the connection:', e.message))

const run = (sql, args) => client.query(sql, args)
const one = async (sql, args) => Object.values((await client.query(sql, args)).rows[0])[0]
const rows = async (n, sql, args) => equal(`rows of ${sql}`, (await client.query(sql, args)).rowCount, n)

await check('connect-tls', async () => { await client.connect(); equal('answer', await one('SELECT 1'), 1) })
await check('connect-plain', async () => {
  const plain = new pg.Client(options({ ssl: false }))
  await plain.connect()
  equal('database', (await plain.query('SELECT current_database() AS d')).rows[0].d, c.database)
  await plain.end()
})
await check('wrong-password', () => throws('28P01', new pg.Client(options({ password: 'wrong' })).connect()))
await check('migrate', () => run(c.schema))
await check('crud', async () => {
  await rows(2, "INSERT INTO countries VALUES ('CH', 'Switzerland'), ('IS', 'Iceland')")
  for (let id = 1; id <= 8; id++) {
    await rows(1, 'INSERT INTO customers (id, name, country) VALUES ($1, $2, $3)', [id, `c${id}`, 'CH'])
    await rows(1, 'INSERT INTO orders (customer_id, id, total) VALUES ($1, $2, $3)', [id, id * 10, '12.50'])
  }
  await rows(1, 'INSERT INTO settings (name, value) VALUES ($1, $2)', ['a', '1'])
  equal('join', await one('SELECT k.name FROM customers c JOIN countries k ON k.code = c.country JOIN orders o ON o.customer_id = c.id WHERE c.id = $1', [4]), 'Switzerland')
  equal('count', await one('SELECT count(*) FROM customers'), '8')
  await rows(1, 'UPDATE customers SET name = $2 WHERE id = $1', [3, 'renamed'])
  await rows(8, 'UPDATE customers SET country = $1', ['IS'])
  await rows(1, 'DELETE FROM orders WHERE customer_id = $1 AND id = $2', [8, 80])
  await rows(1, 'DELETE FROM customers WHERE id = $1', [8])
  await rows(1, "UPDATE settings SET value = '2' WHERE name = $1", ['a'])
  await rows(1, 'DELETE FROM countries WHERE code = $1', ['CH'])
  equal('left', await one('SELECT count(*) FROM customers WHERE country = $1', ['IS']), '7')
})
await check('returning', async () => {
  const r = await run("INSERT INTO customers (id, name) VALUES (101,'x'),(102,'y'),(103,'z'),(104,'w') RETURNING id, name")
  equal('rows in the order of VALUES', r.rows.map((x) => x.id + x.name), ['101x', '102y', '103z', '104w'])
  equal('deleted', await one('DELETE FROM customers WHERE id = 104 RETURNING name'), 'w')
  equal('inserted', await one("INSERT INTO settings (name) VALUES ('returned') RETURNING name"), 'returned')
})
await check('transaction', async () => {
  await run('BEGIN')
  for (let id = 201; id <= 206; id++) await rows(1, "INSERT INTO customers (id, name) VALUES ($1, 't')", [id])
  await rows(1, "INSERT INTO settings (name) VALUES ('tx')")
  await run('COMMIT')
  await run('BEGIN')
  await rows(6, 'DELETE FROM customers WHERE id BETWEEN 201 AND 206')
  equal('deleted', await one("SELECT count(*) FROM customers WHERE name = 't'"), '0')
  await run('ROLLBACK')
  equal('rolled back', await one("SELECT count(*) FROM customers WHERE name = 't'"), '6')
  await run('BEGIN READ ONLY')
  await throws('25006', run('DELETE FROM customers WHERE id = 201'))
  await run('ROLLBACK')
})
await check('savepoint', async () => {
  await run('BEGIN')
  await run("INSERT INTO customers (id, name) VALUES (301, 's')")
  await run('SAVEPOINT a')
  await throws('23505', run("INSERT INTO customers (id, name) VALUES (302, 's'), (301, 'again')"))
  await run('ROLLBACK TO SAVEPOINT a')
  await run("INSERT INTO customers (id, name) VALUES (303, 's')")
  await run('COMMIT')
  equal('kept', await one("SELECT count(*) FROM customers WHERE name = 's'"), '2')
})
await check('prepared', async () => {
  for (let round = 0; round < 3; round++) {
    await run('BEGIN')
    for (const id of [1, 2, 4, 5, 6, 7]) {
      const r = await client.query({ name: 'by-id', text: 'SELECT name FROM customers WHERE id = $1', values: [id] })
      equal('name', r.rows[0].name, `c${id}`)
    }
    await run('COMMIT')
  }
})
await check('unique', async () => {
  await throws('23505', run("INSERT INTO customers (id, name) VALUES ($1, 'x')", [1]), 'customers_pkey')
  await throws('23505', run('INSERT INTO settings (name) VALUES ($1)', ['tx']), 'settings_name')
})
await check('failed-block', async () => {
  await run('BEGIN')
  await throws('22012', run('SELECT 1 / (id - 1) FROM customers WHERE id = $1', [1]))
  await throws('25P02', run('SELECT name FROM customers WHERE id = 2'))
  await run('ROLLBACK')
  equal('after it', await one('SELECT name FROM customers WHERE id = 2'), 'c2')
})
async function value (id, column, put, want = put) {
  await rows(1, `INSERT INTO things (id, ${column}) VALUES ($1, $2)`, [id, put])
  equal(column, await one(`SELECT ${column} FROM things WHERE id = $1`, [id]), want)
}
await check('arrays', async () => {
  await value(1, 'ta', c.texts)
  await value(11, 'ia', [1, -2, 3])
  equal('any', await one('SELECT count(*) FROM customers WHERE id = ANY($1)', [[1, 2, 3, 999]]), '3')
})
await check('json', async () => { await value(2, 'jb', c.doc); await value(12, 'j', c.doc) })
await check('uuid', () => value(3, 'u', c.uuid))
await check('numeric', () => value(4, 'n', c.numeric))
await check('timestamps', () => value(5, 'tz', c.at))
await check('bytea', () => value(6, 'b', c.bytes))
await check('nulls', () => value(7, 't', null))
await check('large', async () => {
  await rows(1, 'INSERT INTO things (id, t, b) VALUES ($1, $2, $3)', [8, c.text, c.blob])
  const r = (await run('SELECT t, b FROM things WHERE id = $1', [8])).rows[0]
  equal('both', [r.t === c.text, r.b.equals(c.blob)], [true, true])
})
await check('copy', async () => {
  const lines = (ids) => Readable.from(ids.map((id) => `${id}\tcopied\\t${id}\n`))
  const ids = Array.from({ length: 1000 }, (_, i) => 1001 + i)
  await pipeline(lines(ids), client.query(from('COPY things (id, t) FROM STDIN')))
  equal('value', await one('SELECT t FROM things WHERE id = 1500'), 'copied\t1500')
  await throws('23505', pipeline(lines([3001, 3002, 3003, 1001]), client.query(from('COPY things (id, t) FROM STDIN'))))
  equal('nothing stored', await one('SELECT count(*) FROM things WHERE id > 3000'), '0')
  let out = ''
  for await (const part of client.query(to('COPY things (id) TO STDOUT'))) out += part
  equal('rows out', String(new Set(out.trim().split('\n')).size), await one('SELECT count(*) FROM things'))
})
none('batch')
await check('cursor', async () => {
  await run('BEGIN')
  const cur = client.query(new Cursor('SELECT id FROM things WHERE id > $1', [1000]))
  const seen = new Set()
  for (let part; (part = await cur.read(100)).length > 0;) part.forEach((r) => seen.add(r.id))
  await cur.close()
  await run('COMMIT')
  equal('rows', seen.size, 1000)
})
await check('cancel', async () => {
  const running = run('SELECT pg_sleep(20) FROM customers WHERE id = 1')
  await new Promise((resolve) => setTimeout(resolve, 1000))
  // What a cancel request of the protocol needs; pg has no public call for it.
  new pg.Client(options()).cancel(client, client.activeQuery ?? client._getActiveQuery?.())
  await throws('57014', running)
  equal('after it', await one('SELECT name FROM customers WHERE id = 1'), 'c1')
})
await check('timeout', async () => {
  await run('BEGIN')
  await run("SET LOCAL statement_timeout = '200ms'")
  await throws('57014', run('SELECT pg_sleep(20) FROM customers WHERE id = 2'))
  await run('ROLLBACK')
  equal('gone', await one('SHOW statement_timeout'), '0')
})
await check('notify', async () => {
  const got = new Promise((resolve) => client.once('notification', resolve))
  await run('LISTEN news')
  const other = new pg.Client(options())
  await other.connect()
  await other.query("SELECT pg_notify('news', $1)", ['hello'])
  const n = await got
  await other.end()
  equal('notification', [n.channel, n.payload], ['news', 'hello'])
})
await check('pool', async () => {
  const pool = new pg.Pool(options({ max: 8 }))
  await Promise.all(Array.from({ length: 24 }, async (_, i) => { for (let n = 0; n < 20; n++) await pool.query(c.upsert, [600 + i]) }))
  equal('names', (await pool.query("SELECT count(*) FROM customers WHERE name = 'n19'")).rows[0].count, '24')
  await pool.end()
})
process.exit(0)
