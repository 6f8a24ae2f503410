"""The program of asyncpg, which speaks the protocol by itself, always prepared and in binary."""
import asyncio
import datetime
import json
import ssl
import uuid
from decimal import Decimal

import asyncpg

from checks import *

tls = ssl.create_default_context(cafile=CA)


def connect(password=PASSWORD, how=tls):
    return asyncpg.connect(host=HOST, port=PORT, user=USER, password=password, database=DATABASE, ssl=how)


async def acheck(name, f):
    try:
        await asyncio.wait_for(f, 60)
        told(name)
    except BaseException as e:
        told(name, e)


async def crud(c):
    equal("tag", await c.execute("INSERT INTO countries VALUES ('CH', 'Switzerland'), ('IS', 'Iceland')"), "INSERT 0 2")
    for i in range(1, 9):
        await c.execute("INSERT INTO customers (id, name, country) VALUES ($1, $2, $3)", i, f"c{i}", "CH")
        await c.execute("INSERT INTO orders (customer_id, id, total) VALUES ($1, $2, $3)", i, i * 10, Decimal("12.50"))
    await c.execute("INSERT INTO settings (name, value) VALUES ($1, $2)", "a", "1")
    equal("join", await c.fetchval("SELECT k.name FROM customers c JOIN countries k ON k.code = c.country JOIN orders o ON o.customer_id = c.id WHERE c.id = $1", 4), "Switzerland")
    equal("count", await c.fetchval("SELECT count(*) FROM customers"), 8)
    equal("tag", await c.execute("UPDATE customers SET name = $2 WHERE id = $1", 3, "renamed"), "UPDATE 1")
    equal("tag", await c.execute("UPDATE customers SET country = $1", "IS"), "UPDATE 8")
    await c.execute("DELETE FROM orders WHERE customer_id = $1 AND id = $2", 8, 80)
    await c.execute("DELETE FROM customers WHERE id = $1", 8)
    await c.execute("UPDATE settings SET value = '2' WHERE name = $1", "a")
    await c.execute("DELETE FROM countries WHERE code = $1", "CH")
    equal("left", await c.fetchval("SELECT count(*) FROM customers WHERE country = $1", "IS"), 7)


async def returning(c):
    got = await c.fetch("INSERT INTO customers (id, name) VALUES (101,'x'),(102,'y'),(103,'z'),(104,'w') RETURNING id, name")
    equal("rows in the order of VALUES", [tuple(r) for r in got], [(101, "x"), (102, "y"), (103, "z"), (104, "w")])
    equal("deleted", await c.fetchval("DELETE FROM customers WHERE id = 104 RETURNING name"), "w")
    equal("inserted", await c.fetchval("INSERT INTO settings (name) VALUES ('returned') RETURNING name"), "returned")


async def transaction(c):
    async with c.transaction():
        for i in range(201, 207):
            await c.execute("INSERT INTO customers (id, name) VALUES ($1, 't')", i)
        await c.execute("INSERT INTO settings (name) VALUES ('tx')")
    tx = c.transaction(isolation="repeatable_read")
    await tx.start()
    await c.execute("DELETE FROM customers WHERE id BETWEEN 201 AND 206")
    equal("deleted", await c.fetchval("SELECT count(*) FROM customers WHERE name = 't'"), 0)
    await tx.rollback()
    equal("rolled back", await c.fetchval("SELECT count(*) FROM customers WHERE name = 't'"), 6)
    with raises("25006"):
        async with c.transaction(readonly=True):
            await c.execute("DELETE FROM customers WHERE id = 201")


async def savepoint(c):
    async with c.transaction():
        await c.execute("INSERT INTO customers (id, name) VALUES (301, 's')")
        with raises("23505"):
            async with c.transaction():
                await c.execute("INSERT INTO customers (id, name) VALUES (302, 's'), (301, 'again')")
        async with c.transaction():
            await c.execute("INSERT INTO customers (id, name) VALUES (303, 's')")
    equal("kept", await c.fetchval("SELECT count(*) FROM customers WHERE name = 's'"), 2)


async def prepared(c):
    stmt = await c.prepare("SELECT name FROM customers WHERE id = $1")
    for _ in range(3):
        async with c.transaction():
            for i in (1, 2, 4, 5, 6, 7):
                equal("name", await stmt.fetchval(i), f"c{i}")


async def unique(c):
    with raises("23505", "customers_pkey"):
        await c.execute("INSERT INTO customers (id, name) VALUES ($1, 'x')", 1)
    with raises("23505", "settings_name"):
        await c.execute("INSERT INTO settings (name) VALUES ($1)", "tx")


async def failed_block(c):
    tx = c.transaction()
    await tx.start()
    with raises("22012"):
        await c.fetch("SELECT 1 / (id - 1) FROM customers WHERE id = $1", 1)
    with raises("25P02"):
        await c.fetch("SELECT name FROM customers WHERE id = 2")
    await tx.rollback()
    equal("after it", await c.fetchval("SELECT name FROM customers WHERE id = 2"), "c2")


async def value(c, id, column, put):
    await c.execute(f"INSERT INTO things (id, {column}) VALUES ($1, $2)", id, put)
    equal(column, await c.fetchval(f"SELECT {column} FROM things WHERE id = $1", id), put)


async def arrays(c):
    await value(c, 1, "ta", TEXTS)
    await value(c, 11, "ia", [1, -2, 3])
    equal("any", await c.fetchval("SELECT count(*) FROM customers WHERE id = ANY($1)", [1, 2, 3, 999]), 3)


async def json_(c):
    await c.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
    await value(c, 2, "jb", DOC)


async def timestamps(c):
    at = datetime.datetime(2024, 2, 29, 23, 59, 58, 123456)
    await value(c, 5, "ts", at)
    await value(c, 15, "tz", at.replace(tzinfo=datetime.timezone.utc))
    await value(c, 25, "d", at.date())


async def nulls(c):
    await c.execute("INSERT INTO things (id, t, ia) VALUES (7, $1, $2)", None, None)
    equal("nulls", tuple(await c.fetchrow("SELECT t, ia, n FROM things WHERE id = 7")), (None, None, None))


async def large(c):
    await c.execute("INSERT INTO things (id, t, b) VALUES ($1, $2, $3)", 8, TEXT, BLOB)
    t, b = await c.fetchrow("SELECT t, b FROM things WHERE id = $1", 8)
    equal("both", (t == TEXT, b == BLOB), (True, True))


async def copy(c):
    rows = [(i, f"copied\t{i}", [i]) for i in range(1001, 2001)]
    equal("tag", await c.copy_records_to_table("things", records=rows, columns=["id", "t", "ia"]), "COPY 1000")
    equal("value", await c.fetchval("SELECT t FROM things WHERE id = $1", 1500), "copied\t1500")
    with raises("23505"):
        await c.copy_records_to_table("things", records=[(3001,), (3002,), (3003,), (1001,)], columns=["id"])
    equal("nothing stored", await c.fetchval("SELECT count(*) FROM things WHERE id > 3000"), 0)
    parts = []

    async def sink(data):
        parts.append(data)
    await c.copy_from_table("things", columns=["id"], output=sink, format="csv")
    equal("rows out", len(set(b"".join(parts).split())), await c.fetchval("SELECT count(*) FROM things"))


async def batch(c):
    await c.executemany("INSERT INTO customers (id, name) VALUES ($1, $2)", [(i, "b") for i in range(401, 501)])
    with raises("23505"):  # an executemany is one transaction
        await c.executemany("INSERT INTO customers (id, name) VALUES ($1, $2)", [(i, "b") for i in (511, 512, 513, 401)])
    equal("rows", await c.fetchval("SELECT count(*) FROM customers WHERE name = 'b'"), 100)


async def cursor(c):
    async with c.transaction():
        seen = {r[0] async for r in c.cursor("SELECT id FROM things WHERE id > $1", 1000, prefetch=100)}
    equal("rows", len(seen), 1000)


async def cancel(c):
    try:  # asyncpg cancels the statement when its time is up
        await c.fetch("SELECT pg_sleep(20) FROM customers WHERE id = 1", timeout=0.5)
    except asyncio.TimeoutError:
        equal("after it", await c.fetchval("SELECT name FROM customers WHERE id = 1"), "c1")
        return
    raise AssertionError("it went on")


async def timeout(c):
    with raises("57014"):
        async with c.transaction():
            await c.execute("SET LOCAL statement_timeout = '200ms'")
            await c.fetch("SELECT pg_sleep(20) FROM customers WHERE id = 2")
    equal("gone", await c.fetchval("SHOW statement_timeout"), "0")


async def notify(c):
    got = asyncio.get_running_loop().create_future()
    await c.add_listener("news", lambda _c, _pid, channel, payload: got.set_result((channel, payload)))
    other = await connect()
    await other.execute("SELECT pg_notify('news', $1)", "hello")
    equal("notification", await asyncio.wait_for(got, 20), ("news", "hello"))
    await other.close()


async def pool():
    async with asyncpg.create_pool(host=HOST, port=PORT, user=USER, password=PASSWORD, database=DATABASE, ssl=tls, min_size=2, max_size=8) as p:
        async def work(i):
            for _ in range(20):
                await p.execute("INSERT INTO customers (id, name) VALUES ($1, 'n0') ON CONFLICT (id) DO UPDATE SET name = 'n' || (substr(customers.name, 2)::int + 1)", 600 + i)
        await asyncio.gather(*(work(i) for i in range(24)))
        equal("names", await p.fetchval("SELECT count(*) FROM customers WHERE name = 'n19'"), 24)


async def plain():
    c = await connect(how=False)
    equal("database", await c.fetchval("SELECT current_database()"), DATABASE)
    await c.close()


async def wrong():
    with raises("28P01"):
        await connect(password="wrong")


async def main():
    c = await connect()
    await acheck("connect-tls", c.fetchval("SELECT 1"))
    await acheck("connect-plain", plain())
    await acheck("wrong-password", wrong())
    await acheck("migrate", c.execute(schema()))
    for name, f in (("crud", crud), ("returning", returning), ("transaction", transaction), ("savepoint", savepoint), ("prepared", prepared),
                    ("unique", unique), ("failed-block", failed_block), ("arrays", arrays), ("json", json_), ("timestamps", timestamps),
                    ("nulls", nulls), ("large", large), ("copy", copy), ("batch", batch), ("cursor", cursor), ("cancel", cancel), ("timeout", timeout),
                    ("notify", notify)):
        await acheck(name, f(c))
    await acheck("uuid", value(c, 3, "u", uuid.UUID(UUID)))
    await acheck("numeric", value(c, 4, "n", Decimal(NUMERIC)))
    await acheck("bytea", value(c, 6, "b", BYTES))
    await acheck("pool", pool())
    await c.close()


asyncio.run(main())
