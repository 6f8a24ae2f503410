// The program of Sequelize: models, and migrations by Umzug.
import { DataTypes as D, Sequelize } from 'sequelize'
import { SequelizeStorage, Umzug } from 'umzug'
import * as c from './checks.mjs'
import { check, equal, none, throws } from './checks.mjs'

const open = (more = {}) => new Sequelize({
  dialect: 'postgres', host: c.host, port: c.port, username: c.user, password: c.password, database: c.database,
  logging: false, dialectOptions: { ssl: c.tls }, pool: { max: 8 }, ...more
})
const db = open()
const run = (sql, bind, transaction) => db.query(sql, { bind, transaction, plain: true })

// What the migrations make, by table. Customers, orders and things are sharded,
// countries is a reference table, settings is global.
const key = { type: D.BIGINT, primaryKey: true, allowNull: false }
const tables = {
  countries: { code: { type: D.TEXT, primaryKey: true }, name: { type: D.TEXT, allowNull: false } },
  customers: { id: key, name: { type: D.TEXT, allowNull: false }, country: D.TEXT },
  orders: {
    customer_id: { ...key, references: { model: 'customers', key: 'id' } }, id: key, total: D.DECIMAL(12, 2),
    placed: { type: D.DATE, allowNull: false, defaultValue: D.NOW }
  },
  things: {
    id: key, n: D.DECIMAL, u: D.UUID, j: D.JSON, jb: D.JSONB, tz: D.DATE, b: D.BLOB, ia: D.ARRAY(D.INTEGER), ta: D.ARRAY(D.TEXT), t: D.TEXT
  },
  settings: { id: { type: D.INTEGER, primaryKey: true, autoIncrement: true }, name: { type: D.TEXT, allowNull: false }, value: D.TEXT }
}
const model = (name, table) => db.define(name, tables[table], { tableName: table, timestamps: false })
const Country = model('Country', 'countries')
const Customer = model('Customer', 'customers')
const Order = model('Order', 'orders')
const Thing = model('Thing', 'things')
const Setting = model('Setting', 'settings')
Customer.hasMany(Order, { foreignKey: 'customer_id' })

const migrations = [
  { name: '01-tables', up: async ({ context: q }) => { for (const t of Object.keys(tables)) await q.createTable(t, tables[t]) } },
  {
    name: '02-email',
    up: async ({ context: q }) => {
      await q.addColumn('customers', 'email', { type: D.TEXT })
      await q.addIndex('orders', ['placed'])
      await q.addConstraint('settings', { fields: ['name'], type: 'unique', name: 'settings_name' })
    }
  }
]
const migrate = () => new Umzug({
  migrations, context: db.getQueryInterface(), storage: new SequelizeStorage({ sequelize: db }), logger: undefined
}).up()

await check('connect-tls', async () => { await db.authenticate(); equal('answer', (await run('SELECT 1 AS one')).one, 1) })
await check('connect-plain', async () => {
  const plain = open({ dialectOptions: {} })
  equal('database', (await plain.query('SELECT current_database() AS d', { plain: true })).d, c.database)
  await plain.close()
})
await check('wrong-password', () => throws('28P01', open({ password: 'wrong' }).authenticate()))
await check('migrate', async () => {
  equal('done', (await migrate()).length, 2)
  equal('done again', (await migrate()).length, 0)
  const columns = await db.getQueryInterface().describeTable('customers')
  equal('columns', Object.keys(columns).sort(), ['country', 'email', 'id', 'name'])
})
await check('crud', async () => {
  await Country.bulkCreate([{ code: 'CH', name: 'Switzerland' }, { code: 'IS', name: 'Iceland' }])
  for (let id = 1; id <= 8; id++) {
    await Customer.create({ id, name: `c${id}`, country: 'CH' })
    await Order.create({ customer_id: id, id: id * 10, total: '12.50' })
  }
  await Setting.create({ name: 'a', value: '1' })
  const four = await Customer.findByPk(4, { include: Order })
  equal('with its orders', four.Orders.map((o) => o.total), ['12.50'])
  equal('join', (await run('SELECT k.name FROM customers c JOIN countries k ON k.code = c.country WHERE c.id = $1', [4])).name, 'Switzerland')
  equal('count', await Customer.count(), 8)
  equal('updated', await Customer.update({ name: 'renamed' }, { where: { id: 3 } }), [1])
  equal('all updated', await Customer.update({ country: 'IS' }, { where: {} }), [8])
  equal('order deleted', await Order.destroy({ where: { customer_id: 8, id: 80 } }), 1)
  equal('customer deleted', await Customer.destroy({ where: { id: 8 } }), 1)
  equal('setting updated', await Setting.update({ value: '2' }, { where: { name: 'a' } }), [1])
  equal('country deleted', await Country.destroy({ where: { code: 'CH' } }), 1)
  equal('left', await Customer.count({ where: { country: 'IS' } }), 7)
})
await check('returning', async () => {
  const made = await Customer.bulkCreate([101, 102, 103, 104].map((id, i) => ({ id, name: 'xyzw'[i] })), { returning: true })
  equal('rows in the order of VALUES', made.map((m) => m.id + m.name), ['101x', '102y', '103z', '104w'])
  equal('a number was given', (await Setting.create({ name: 'returned' })).id > 0, true)
})
await check('transaction', async () => {
  await db.transaction(async (transaction) => {
    for (let id = 201; id <= 206; id++) await Customer.create({ id, name: 't' }, { transaction })
    await Setting.create({ name: 'tx' }, { transaction })
  })
  const t = await db.transaction()
  equal('deleted', await Customer.destroy({ where: { name: 't' }, transaction: t }), 6)
  equal('seen within', await Customer.count({ where: { name: 't' }, transaction: t }), 0)
  await t.rollback()
  equal('rolled back', await Customer.count({ where: { name: 't' } }), 6)
  await throws('25006', db.transaction(async (transaction) => {
    await run('SET TRANSACTION READ ONLY', undefined, transaction)
    await Customer.destroy({ where: { id: 201 }, transaction })
  }))
})
await check('savepoint', async () => {
  await db.transaction(async (outer) => {
    await Customer.create({ id: 301, name: 's' }, { transaction: outer })
    await throws('23505', db.transaction({ transaction: outer }, (inner) =>
      Customer.bulkCreate([{ id: 302, name: 's' }, { id: 301, name: 'again' }], { transaction: inner })))
    await Customer.create({ id: 303, name: 's' }, { transaction: outer })
  })
  equal('kept', await Customer.count({ where: { name: 's' } }), 2)
})
none('prepared')
await check('unique', async () => {
  await throws('23505', Customer.create({ id: 1, name: 'x' }), 'customers_pkey')
  await throws('23505', Setting.create({ name: 'tx' }), 'settings_name')
})
await check('failed-block', async () => {
  const t = await db.transaction()
  await throws('22012', run('SELECT 1 / (id - 1) FROM customers WHERE id = $1', [1], t))
  await throws('25P02', Customer.findByPk(2, { transaction: t }))
  await t.rollback()
  equal('after it', (await Customer.findByPk(2)).name, 'c2')
})
async function value (id, column, put, want = put) {
  await Thing.create({ id, [column]: put })
  equal(column, (await Thing.findByPk(id)).get(column), want)
}
await check('arrays', async () => {
  await value(1, 'ta', c.texts)
  await value(11, 'ia', [1, -2, 3])
  equal('in', await Customer.count({ where: { id: [1, 2, 3, 999] } }), 3)
})
await check('json', async () => { await value(2, 'jb', c.doc); await value(12, 'j', c.doc) })
await check('uuid', () => value(3, 'u', c.uuid))
await check('numeric', () => value(4, 'n', c.numeric))
await check('timestamps', () => value(5, 'tz', c.at))
await check('bytea', () => value(6, 'b', c.bytes))
await check('nulls', () => value(7, 't', null))
await check('large', async () => {
  await Thing.create({ id: 8, t: c.text, b: c.blob })
  const r = await Thing.findByPk(8)
  equal('both', [r.t === c.text, r.b.equals(c.blob)], [true, true])
})
none('copy')
await check('batch', async () => {
  const many = Array.from({ length: 500 }, (_, i) => ({ id: 1001 + i, t: 'many' }))
  await Thing.bulkCreate(many)
  equal('stored', await Thing.count({ where: { t: 'many' } }), 500)
  await throws('23505', Thing.bulkCreate([{ id: 3001 }, { id: 3002 }, { id: 3003 }, { id: 1001 }]))
  equal('nothing stored', await run('SELECT count(*) AS n FROM things WHERE id > 3000'), { n: '0' })
})
none('cursor', 'cancel')
await check('timeout', async () => {
  await throws('57014', db.transaction(async (t) => {
    await run("SET LOCAL statement_timeout = '200ms'", undefined, t)
    await run('SELECT pg_sleep(20) FROM customers WHERE id = 2', undefined, t)
  }))
  equal('gone', (await run('SHOW statement_timeout')).statement_timeout, '0')
})
none('notify')
await check('pool', async () => {
  await Promise.all(Array.from({ length: 24 }, async (_, i) => { for (let n = 0; n < 20; n++) await db.query(c.upsert, { bind: [600 + i] }) }))
  equal('names', await Customer.count({ where: { name: 'n19' } }), 24)
})
await db.close()
process.exit(0)
