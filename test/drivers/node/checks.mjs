// What all programs of this folder share: where to connect, and how a check is told.
import { readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'

const env = process.env
export const host = env.DRIVER_HOST
export const port = Number(env.DRIVER_PORT)
export const user = env.DRIVER_USER
export const password = env.DRIVER_PASSWORD
export const database = env.DRIVER_DATABASE
export const tls = { ca: readFileSync(env.DRIVER_CA, 'utf8'), rejectUnauthorized: true }
export const schema = readFileSync(env.DRIVER_SCHEMA, 'utf8')

export const uuid = '8c5a3ef0-8e4c-4d0a-9a40-0c8bb0b1d6f1'
export const numeric = '-12345678901234567890.123456789'
export const doc = { a: 1.5, b: ['x', null, true], c: 'quote " and \\ ' }
export const texts = ['a', 'b"c', '{d,e}', '']
export const bytes = Buffer.from([0, 1, 255, 92, 39, 10])
export const at = new Date('2024-02-29T23:59:58.123Z')
export const text = "äx\\'".repeat(2_000_000)
export const blob = Buffer.alloc(10_000_000, Buffer.from([0, 255, 7, 9]))

export const upsert = `INSERT INTO customers (id, name) VALUES ($1, 'n0')
  ON CONFLICT (id) DO UPDATE SET name = 'n' || (substr(customers.name, 2)::int + 1)`

export async function check (name, f) {
  let timer
  const late = new Promise((_resolve, reject) => { timer = setTimeout(() => reject(new Error('no end after a minute')), 60_000) })
  try {
    await Promise.race([f(), late])
    console.log(`${name}\tok`)
  } catch (e) {
    console.error(e?.stack?.slice(0, 2000))
    console.log(`${name}\tfail\t${String(e?.message ?? e).replace(/\s+/g, ' ').slice(0, 600)}`)
  } finally {
    clearTimeout(timer)
  }
}

export function none (...names) {
  for (const n of names) console.log(`${n}\tnone`)
}

const show = (v) => String(typeof v === 'string' ? v : JSON.stringify(v)).slice(0, 200)

export function equal (what, got, want) {
  if (!isDeepStrictEqual(got, want)) throw new Error(`${what}: ${show(got)} instead of ${show(want)}`)
}

// throws wants an error of one SQLSTATE, and constraint if given, of whatever
// driver or of an ORM that wraps one.
export async function throws (state, promise, constraint) {
  let error
  try {
    await (typeof promise === 'function' ? promise() : promise)
  } catch (e) {
    error = e
  }
  if (!error) throw new Error(`no error, but ${state} was due`)
  while (!error.code && (error.cause || error.parent || error.original)) error = error.cause || error.parent || error.original
  if (error.code !== state) throw new Error(`${error.code} instead of ${state}: ${error.message}`)
  if (constraint) equal('constraint', error.constraint ?? error.constraint_name, constraint)
}
