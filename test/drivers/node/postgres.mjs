// The program of postgres.js, which pipelines what it is given.
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import postgres from 'postgres'
import * as c from './checks.mjs'
import { check, equal, throws } from './checks.mjs'

const options = (more = {}) => ({ host: c.host, port: c.port, user: c.user, pass: c.password, database: c.database, ssl: c.tls, onnotice: () => {}, ...more })
const open = (more) => postgres(options({ password: c.password, ...more }))
const sql = open({ max: 1 })

await check('connect-tls', async () => equal('answer', (await sql`SELECT 1 AS x`)[0].x, 1))
await check('connect-plain', async () => {
  const plain = open({ ssl: false })
  equal('database', (await plain`SELECT current_database() AS d`)[0].d, c.database)
  await plain.end()
})
await check('wrong-password', () => throws('28P01', open({ pass: 'wrong', password: 'wrong' })`SELECT 1`))
await check('migrate', () => sql.unsafe(c.schema))
await check('crud', async () => {
  const n = async (want, q) => equal('rows', (await q).count, want)
  await n(2, sql`INSERT INTO countries ${sql([{ code: 'CH', name: 'Switzerland' }, { code: 'IS', name: 'Iceland' }])}`)
  for (let id = 1; id <= 8; id++) {
    await n(1, sql`INSERT INTO customers ${sql({ id, name: `c${id}`, country: 'CH' })}`)
    await n(1, sql`INSERT INTO orders (customer_id, id, total) VALUES (${id}, ${id * 10}, ${'12.50'})`)
  }
  await n(1, sql`INSERT INTO settings ${sql({ name: 'a', value: '1' })}`)
  equal('join', (await sql`SELECT k.name FROM customers c JOIN countries k ON k.code = c.country JOIN orders o ON o.customer_id = c.id WHERE c.id = ${4}`)[0].name, 'Switzerland')
  equal('count', (await sql`SELECT count(*) FROM customers`)[0].count, '8')
  await n(1, sql`UPDATE customers SET ${sql({ name: 'renamed' })} WHERE id = ${3}`)
  equal('in', (await sql`SELECT name FROM customers WHERE id IN ${sql([1, 3])}`).map((r) => r.name).sort(), ['c1', 'renamed'])
  await n(8, sql`UPDATE customers SET country = ${'IS'}`)
  await n(1, sql`DELETE FROM orders WHERE customer_id = ${8} AND id = ${80}`)
  await n(1, sql`DELETE FROM customers WHERE id = ${8}`)
  await n(1, sql`UPDATE settings SET value = '2' WHERE name = ${'a'}`)
  await n(1, sql`DELETE FROM countries WHERE code = ${'CH'}`)
  equal('left', (await sql`SELECT count(*) FROM customers WHERE country = ${'IS'}`)[0].count, '7')
})
await check('returning', async () => {
  const r = await sql`INSERT INTO customers ${sql([101, 102, 103, 104].map((id) => ({ id, name: `n${id}` })))} RETURNING id, name`
  equal('rows in the order of VALUES', r.map((x) => x.id + x.name), ['101n101', '102n102', '103n103', '104n104'])
  equal('deleted', (await sql`DELETE FROM customers WHERE id = 104 RETURNING name`)[0].name, 'n104')
  equal('inserted', (await sql`INSERT INTO settings (name) VALUES ('returned') RETURNING name`)[0].name, 'returned')
})
const countT = async () => (await sql`SELECT count(*) FROM customers WHERE name = 't'`)[0].count
await check('transaction', async () => {
  await sql.begin(async (tx) => {
    for (let id = 201; id <= 206; id++) await tx`INSERT INTO customers (id, name) VALUES (${id}, 't')`
    await tx`INSERT INTO settings (name) VALUES ('tx')`
  })
  const stop = new Error('stop')
  await sql.begin('isolation level repeatable read', async (tx) => {
    await tx`DELETE FROM customers WHERE id BETWEEN 201 AND 206`
    equal('deleted', (await tx`SELECT count(*) FROM customers WHERE name = 't'`)[0].count, '0')
    throw stop
  }).catch((e) => { if (e !== stop) throw e })
  equal('rolled back', await countT(), '6')
  await throws('25006', sql.begin('read only', (tx) => tx`DELETE FROM customers WHERE id = 201`))
})
await check('savepoint', async () => {
  await sql.begin(async (tx) => {
    await tx`INSERT INTO customers (id, name) VALUES (301, 's')`
    await throws('23505', tx.savepoint((sp) => sp`INSERT INTO customers (id, name) VALUES (302, 's'), (301, 'again')`))
    await tx.savepoint((sp) => sp`INSERT INTO customers (id, name) VALUES (303, 's')`)
  })
  equal('kept', (await sql`SELECT count(*) FROM customers WHERE name = 's'`)[0].count, '2')
})
await check('prepared', async () => { // every tagged query is a prepared statement
  for (let round = 0; round < 3; round++) {
    await sql.begin(async (tx) => {
      for (const id of [1, 2, 4, 5, 6, 7]) equal('name', (await tx`SELECT name FROM customers WHERE id = ${id}`)[0].name, `c${id}`)
    })
  }
})
await check('unique', async () => {
  await throws('23505', sql`INSERT INTO customers (id, name) VALUES (${1}, 'x')`, 'customers_pkey')
  await throws('23505', sql`INSERT INTO settings (name) VALUES (${'tx'})`, 'settings_name')
})
await check('failed-block', async () => {
  await throws('22012', sql.begin(async (tx) => {
    await throws('22012', tx`SELECT 1 / (id - 1) FROM customers WHERE id = ${1}`)
    await throws('25P02', tx`SELECT name FROM customers WHERE id = 2`)
  }))
  equal('after it', (await sql`SELECT name FROM customers WHERE id = 2`)[0].name, 'c2')
})
async function value (id, column, put, want = put) {
  await sql`INSERT INTO things ${sql({ id, [column]: put })}`
  equal(column, (await sql`SELECT ${sql(column)} AS v FROM things WHERE id = ${id}`)[0].v, want)
}
await check('arrays', async () => {
  await value(1, 'ta', c.texts)
  await value(11, 'ia', [1, -2, 3])
  equal('any', (await sql`SELECT count(*) FROM customers WHERE id = ANY(${[1, 2, 3, 999]})`)[0].count, '3')
})
await check('json', async () => { await value(2, 'jb', c.doc); await value(12, 'j', c.doc) })
await check('uuid', () => value(3, 'u', c.uuid))
await check('numeric', () => value(4, 'n', c.numeric))
await check('timestamps', () => value(5, 'tz', c.at))
await check('bytea', () => value(6, 'b', c.bytes))
await check('nulls', () => value(7, 't', null))
await check('large', async () => {
  await sql`INSERT INTO things ${sql({ id: 8, t: c.text, b: c.blob })}`
  const r = (await sql`SELECT t, b FROM things WHERE id = ${8}`)[0]
  equal('both', [r.t === c.text, Buffer.from(r.b).equals(c.blob)], [true, true])
})
await check('copy', async () => {
  const lines = (ids) => Readable.from(ids.map((id) => `${id}\tcopied\\t${id}\n`))
  await pipeline(lines(Array.from({ length: 1000 }, (_, i) => 1001 + i)), await sql`COPY things (id, t) FROM STDIN`.writable())
  equal('value', (await sql`SELECT t FROM things WHERE id = 1500`)[0].t, 'copied\t1500')
  // (postgres.js tells nobody of a COPY that the server refuses at its end.)
  let out = ''
  for await (const part of await sql`COPY things (id) TO STDOUT`.readable()) out += part
  equal('rows out', String(new Set(out.trim().split('\n')).size), (await sql`SELECT count(*) FROM things`)[0].count)
})
await check('batch', async () => { // many at once on one connection are one pipeline
  const names = await Promise.all([1, 2, 4, 5, 6, 7].map((id) => sql`SELECT name FROM customers WHERE id = ${id}`))
  equal('names', names.map((r) => r[0].name), ['c1', 'c2', 'c4', 'c5', 'c6', 'c7'])
  await sql.begin((tx) => Array.from({ length: 50 }, (_, i) => tx`INSERT INTO customers (id, name) VALUES (${401 + i}, 'b')`))
  await throws('23505', sql.begin((tx) => [511, 512, 513, 401].map((id) => tx`INSERT INTO customers (id, name) VALUES (${id}, 'b')`)))
  equal('rows', (await sql`SELECT count(*) FROM customers WHERE name = 'b'`)[0].count, '50')
})
await check('cursor', async () => {
  const seen = new Set()
  for await (const part of sql`SELECT id FROM things WHERE id > ${1000}`.cursor(100)) part.forEach((r) => seen.add(r.id))
  equal('rows', seen.size, 1000)
})
await check('cancel', async () => {
  const q = sql`SELECT pg_sleep(20) FROM customers WHERE id = 1`
  setTimeout(() => q.cancel(), 1000)
  await throws('57014', q)
  equal('after it', (await sql`SELECT name FROM customers WHERE id = 1`)[0].name, 'c1')
})
await check('timeout', async () => {
  await throws('57014', sql.begin(async (tx) => {
    await tx`SET LOCAL statement_timeout = '200ms'`
    await tx`SELECT pg_sleep(20) FROM customers WHERE id = 2`
  }))
  equal('gone', (await sql`SHOW statement_timeout`)[0].statement_timeout, '0')
})
await check('notify', async () => {
  const listener = open({ max: 2 })
  let heard
  const got = new Promise((resolve) => { heard = resolve })
  await listener.listen('news', heard)
  await sql.notify('news', 'hello')
  equal('payload', await got, 'hello')
  await listener.end({ timeout: 1 })
})
await check('pool', async () => {
  const pool = open({ max: 8 })
  await Promise.all(Array.from({ length: 24 }, async (_, i) => { for (let n = 0; n < 20; n++) await pool.unsafe(c.upsert, [600 + i]) }))
  equal('names', (await pool`SELECT count(*) FROM customers WHERE name = 'n19'`)[0].count, '24')
  await pool.end()
})
process.exit(0)
