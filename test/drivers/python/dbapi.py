"""The program of psycopg2 and of psycopg 3, whose DB-API is the same but in places."""
import csv
import datetime
import io
import select
import sys
import threading
import time
from decimal import Decimal

from checks import *

three = sys.argv[1] == "psycopg"
if three:
    import psycopg as db
    from psycopg.types.json import Json
else:
    import psycopg2 as db
    import psycopg2.extensions
    import psycopg2.extras
    from psycopg2.extras import Json


def connect(password=PASSWORD, **more):
    more.setdefault("sslmode", "verify-full")
    return db.connect(host=HOST, port=PORT, user=USER, password=password, dbname=DATABASE, sslrootcert=CA, **more)


def wrong_password():
    try:
        connect(password="wrong")
    except db.OperationalError as e:
        # libpq keeps no SQLSTATE of a login
        if "password authentication failed" not in str(e):
            raise
        return
    raise AssertionError("let in")


def plain():
    c = connect(sslmode="disable")
    with c.cursor() as cur:
        cur.execute("SELECT current_database()")
        equal("database", cur.fetchone()[0], DATABASE)
    c.close()


conn = None


def start():
    global conn
    conn = connect()
    conn.autocommit = True
    equal("answer", one("SELECT 1"), 1)


def run(sql, args=None, rows=None, on=None):
    with (on or conn).cursor() as cur:
        cur.execute(sql, args)
        if rows is not None:
            equal("rows of " + sql, cur.rowcount, rows)
        return cur.fetchall() if cur.description else None


def one(sql, args=None):
    return run(sql, args)[0][0]


class block:
    """A transaction that the caller ends."""

    def __enter__(self):
        conn.autocommit = False
        return conn

    def __exit__(self, *_):
        conn.rollback()
        conn.autocommit = True


def crud():
    run("INSERT INTO countries VALUES ('CH', 'Switzerland'), ('IS', 'Iceland')", rows=2)
    for i in range(1, 9):
        run("INSERT INTO customers (id, name, country) VALUES (%s, %s, %s)", (i, f"c{i}", "CH"), 1)
        run("INSERT INTO orders (customer_id, id, total) VALUES (%s, %s, %s)", (i, i * 10, Decimal("12.50")), 1)
    run("INSERT INTO settings (name, value) VALUES (%s, %s)", ("a", "1"), 1)
    equal("join", one("SELECT k.name FROM customers c JOIN countries k ON k.code = c.country JOIN orders o ON o.customer_id = c.id WHERE c.id = %s", (4,)), "Switzerland")
    equal("count", one("SELECT count(*) FROM customers"), 8)
    run("UPDATE customers SET name = %s WHERE id = %s", ("renamed", 3), 1)
    equal("updated", one("SELECT name FROM customers WHERE id = %s", (3,)), "renamed")
    run("UPDATE customers SET country = %s", ("IS",), 8)
    run("DELETE FROM orders WHERE customer_id = %s AND id = %s", (8, 80), 1)
    run("DELETE FROM customers WHERE id = %s", (8,), 1)
    run("UPDATE settings SET value = '2' WHERE name = %s", ("a",), 1)
    run("DELETE FROM countries WHERE code = %s", ("CH",), 1)
    equal("left", one("SELECT count(*) FROM customers WHERE country = %s", ("IS",)), 7)


def returning():
    got = run("INSERT INTO customers (id, name) VALUES (101,'x'),(102,'y'),(103,'z'),(104,'w') RETURNING id, name")
    equal("rows in the order of VALUES", list(map(tuple, got)), [(101, "x"), (102, "y"), (103, "z"), (104, "w")])
    equal("deleted", one("DELETE FROM customers WHERE id = 104 RETURNING name"), "w")
    equal("inserted", one("INSERT INTO settings (name) VALUES ('returned') RETURNING name"), "returned")


def transaction():
    with block():
        for i in range(201, 207):
            run("INSERT INTO customers (id, name) VALUES (%s, 't')", (i,), 1)
        run("INSERT INTO settings (name) VALUES ('tx')", rows=1)
        conn.commit()
        run("DELETE FROM customers WHERE id BETWEEN 201 AND 206", rows=6)
        equal("deleted", one("SELECT count(*) FROM customers WHERE name = 't'"), 0)
        conn.rollback()
    equal("rolled back", one("SELECT count(*) FROM customers WHERE name = 't'"), 6)
    with block():
        run("SET TRANSACTION READ ONLY")
        with raises("25006"):
            run("DELETE FROM customers WHERE id = 201")


def savepoint():
    with block():
        run("INSERT INTO customers (id, name) VALUES (301, 's')")
        run("SAVEPOINT a")
        with raises("23505"):
            run("INSERT INTO customers (id, name) VALUES (302, 's'), (301, 'again')")
        run("ROLLBACK TO SAVEPOINT a")
        run("INSERT INTO customers (id, name) VALUES (303, 's')")
        run("RELEASE SAVEPOINT a")
        conn.commit()
    equal("kept", one("SELECT count(*) FROM customers WHERE name = 's'"), 2)


def prepared():
    for _ in range(3):
        with block():
            for i in (1, 2, 4, 5, 6, 7):
                with conn.cursor() as cur:
                    if three:
                        cur.execute("SELECT name FROM customers WHERE id = %s", (i,), prepare=True)
                    else:  # psycopg2 has SQL's PREPARE only
                        if not prepared.done:
                            run("PREPARE by_id AS SELECT name FROM customers WHERE id = $1")
                            prepared.done = True
                        cur.execute("EXECUTE by_id(%s)", (i,))
                    equal("name", cur.fetchone()[0], f"c{i}")
            conn.commit()


prepared.done = False


def unique():
    with raises("23505", "customers_pkey"):
        run("INSERT INTO customers (id, name) VALUES (%s, 'x')", (1,))
    with raises("23505", "settings_name"):
        run("INSERT INTO settings (name) VALUES (%s)", ("tx",))


def failed_block():
    with block():
        with raises("22012"):
            run("SELECT 1 / (id - 1) FROM customers WHERE id = %s", (1,))
        with raises("25P02"):
            run("SELECT name FROM customers WHERE id = 2")
    equal("after it", one("SELECT name FROM customers WHERE id = 2"), "c2")


def value(id, column, put, want=None):
    want = put if want is None else want
    run(f"INSERT INTO things (id, {column}) VALUES (%s, %s)", (id, put), 1)
    got = one(f"SELECT {column} FROM things WHERE id = %s", (id,))
    equal(column, bytes(got) if isinstance(got, memoryview) else got, want)


def arrays():
    value(1, "ta", TEXTS)
    value(11, "ia", [1, -2, 3])
    equal("any", one("SELECT count(*) FROM customers WHERE id = ANY(%s)", ([1, 2, 3, 999],)), 3)


def json_():
    value(2, "jb", Json(DOC), DOC)
    value(12, "j", Json(DOC), DOC)
    equal("->>", one("SELECT jb->>'a' FROM things WHERE id = 2"), "1.5")


def uuid_():
    run("INSERT INTO things (id, u) VALUES (3, %s)", (UUID,), 1)
    equal("uuid", str(one("SELECT u FROM things WHERE id = 3")), UUID)


def timestamps():
    at = datetime.datetime(2024, 2, 29, 23, 59, 58, 123456)
    value(5, "ts", at)
    value(15, "tz", at.replace(tzinfo=datetime.timezone.utc))
    value(25, "d", at.date())


def nulls():
    run("INSERT INTO things (id, t, ia) VALUES (7, %s, %s)", (None, None), 1)
    equal("nulls", tuple(run("SELECT t, ia, n FROM things WHERE id = 7")[0]), (None, None, None))


def large():
    run("INSERT INTO things (id, t, b) VALUES (%s, %s, %s)", (8, TEXT, BLOB), 1)
    t, b = run("SELECT t, b FROM things WHERE id = %s", (8,))[0]
    equal("both", (t == TEXT, bytes(b) == BLOB), (True, True))


def copy_in(ids):
    with conn.cursor() as cur:
        text = "".join(f"{i}\tcopied\\t{i}\t{{{i}}}\n" for i in ids)
        if three:
            with cur.copy("COPY things (id, t, ia) FROM STDIN") as copy:
                copy.write(text)
        else:
            cur.copy_expert("COPY things (id, t, ia) FROM STDIN", io.StringIO(text))


def copy():
    copy_in(range(1001, 2001))
    equal("copied", one("SELECT count(*) FROM things WHERE id > 1000"), 1000)
    equal("value", one("SELECT t FROM things WHERE id = 1500"), "copied\t1500")
    with raises("23505"):
        copy_in([3001, 3002, 3003, 1001])
    equal("nothing stored", one("SELECT count(*) FROM things WHERE id > 3000"), 0)
    out = io.BytesIO()
    with conn.cursor() as cur:
        if three:
            with cur.copy("COPY things (id, ta) TO STDOUT (FORMAT csv)") as c:
                for data in c:
                    out.write(data)
        else:
            cur.copy_expert("COPY things (id, ta) TO STDOUT (FORMAT csv)", out)
    rows = list(csv.reader(io.StringIO(out.getvalue().decode())))
    equal("rows out", len({r[0] for r in rows}), one("SELECT count(*) FROM things"))


def batch():
    many = [(i, "b") for i in range(401, 501)]
    with conn.cursor() as cur:
        if three:
            cur.executemany("INSERT INTO customers (id, name) VALUES (%s, %s)", many)
            with conn.pipeline():
                for i in range(501, 521):
                    cur.execute("INSERT INTO customers (id, name) VALUES (%s, 'b')", (i,))
        else:
            psycopg2.extras.execute_batch(cur, "INSERT INTO customers (id, name) VALUES (%s, %s)", many)
            psycopg2.extras.execute_values(cur, "INSERT INTO customers (id, name) VALUES %s", [(i, "b") for i in range(501, 521)])
    equal("rows", one("SELECT count(*) FROM customers WHERE name = 'b'"), 120)


def cursor():
    with block():
        with conn.cursor("named") as cur:
            cur.itersize = 100
            cur.execute("SELECT id FROM things WHERE id > 1000")
            equal("rows", len({r[0] for r in cur}), 1000)


def cancel():
    timer = threading.Timer(1, conn.cancel)
    timer.start()
    start = time.monotonic()
    with raises("57014"):
        run("SELECT pg_sleep(20) FROM customers WHERE id = 1")
    timer.join()
    if time.monotonic() - start > 10:
        raise AssertionError("it took too long")
    equal("after it", one("SELECT name FROM customers WHERE id = 1"), "c1")


def timeout():
    with block():
        run("SET LOCAL statement_timeout = '200ms'")
        with raises("57014"):
            run("SELECT pg_sleep(20) FROM customers WHERE id = 2")
    equal("gone", one("SHOW statement_timeout"), "0")


def notify():
    other = connect()
    other.autocommit = True
    run("LISTEN news")
    run("SELECT pg_notify('news', 'hello')", on=other)
    if three:
        got = next(iter(conn.notifies()))
    else:
        if not conn.notifies and select.select([conn], [], [], 20)[0]:
            conn.poll()
        got = conn.notifies.pop()
    equal("notification", (got.channel, got.payload), ("news", "hello"))
    run("UNLISTEN *")
    other.close()


def pool():
    if three:
        from psycopg_pool import ConnectionPool
        info = db.conninfo.make_conninfo(host=HOST, port=PORT, user=USER, password=PASSWORD, dbname=DATABASE, sslmode="verify-full", sslrootcert=CA)
        p = ConnectionPool(info, min_size=2, max_size=8)
        get, put = p.getconn, p.putconn
    else:
        from psycopg2.pool import ThreadedConnectionPool
        p = ThreadedConnectionPool(2, 8, host=HOST, port=PORT, user=USER, password=PASSWORD, dbname=DATABASE, sslmode="verify-full", sslrootcert=CA)
        get, put = p.getconn, p.putconn
    failures = []

    def work(i):
        try:
            for _ in range(20):
                c = get()
                try:
                    run("INSERT INTO customers (id, name) VALUES (%s, 'n0') ON CONFLICT (id) DO UPDATE SET name = 'n' || (substr(customers.name, 2)::int + 1)", (600 + i,), 1, on=c)
                    c.commit()
                finally:
                    put(c)
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    p.close() if three else p.closeall()
    equal("failures", failures, [])
    equal("names", one("SELECT count(*) FROM customers WHERE name = 'n19'"), 8)


check("connect-tls", start)
check("connect-plain", plain)
check("wrong-password", wrong_password)
check("migrate", run, schema())
check("crud", crud)
check("returning", returning)
check("transaction", transaction)
check("savepoint", savepoint)
check("prepared", prepared)
check("unique", unique)
check("failed-block", failed_block)
check("arrays", arrays)
check("json", json_)
check("uuid", uuid_)
check("numeric", value, 4, "n", Decimal(NUMERIC))
check("timestamps", timestamps)
check("bytea", value, 6, "b", BYTES)
check("nulls", nulls)
check("large", large)
check("copy", copy)
check("batch", batch)
check("cursor", cursor)
check("cancel", cancel)
check("timeout", timeout)
check("notify", notify)
check("pool", pool)
