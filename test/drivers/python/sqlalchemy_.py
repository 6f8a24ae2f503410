"""The program of SQLAlchemy, on psycopg2."""
import datetime
import threading
import time
import uuid
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import func, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID as PgUUID, insert
from sqlalchemy.orm import Session, declarative_base, relationship

from checks import *

Base = declarative_base()


class Country(Base):
    __tablename__ = "countries"
    code = sa.Column(sa.Text, primary_key=True)
    name = sa.Column(sa.Text, nullable=False)


class Customer(Base):
    __tablename__ = "customers"
    id = sa.Column(sa.BigInteger, primary_key=True, autoincrement=False)
    name = sa.Column(sa.Text, nullable=False)
    country = sa.Column(sa.Text)
    orders = relationship("Order", back_populates="customer")


class Order(Base):
    __tablename__ = "orders"
    customer_id = sa.Column(sa.BigInteger, sa.ForeignKey("customers.id"), primary_key=True)
    id = sa.Column(sa.BigInteger, primary_key=True, autoincrement=False)
    total = sa.Column(sa.Numeric(12, 2))
    placed = sa.Column(sa.DateTime(timezone=True), server_default=func.now(), index=True)
    customer = relationship("Customer", back_populates="orders")


class Setting(Base):
    __tablename__ = "settings"
    id = sa.Column(sa.BigInteger, primary_key=True)
    name = sa.Column(sa.Text, nullable=False)
    value = sa.Column(sa.Text)
    __table_args__ = (sa.UniqueConstraint("name", name="settings_name"),)


class Thing(Base):
    __tablename__ = "things"
    id = sa.Column(sa.BigInteger, primary_key=True, autoincrement=False)
    n = sa.Column(sa.Numeric)
    u = sa.Column(PgUUID(as_uuid=True))
    jb = sa.Column(JSONB)
    tz = sa.Column(sa.DateTime(timezone=True))
    b = sa.Column(sa.LargeBinary)
    ta = sa.Column(ARRAY(sa.Text))
    t = sa.Column(sa.Text)


def open_(password=PASSWORD, mode="verify-full", **more):
    url = sa.engine.URL.create("postgresql+psycopg2", USER, password, HOST, PORT, DATABASE, {"sslmode": mode, "sslrootcert": CA})
    return sa.create_engine(url, future=True, **more)


engine = open_(pool_size=8, max_overflow=0)


def ping(e):
    with e.connect() as c:
        equal("database", c.scalar(text("SELECT current_database()")), DATABASE)
    if e is not engine:
        e.dispose()


def wrong():
    try:
        ping(open_(password="wrong"))
    except sa.exc.OperationalError as e:
        if "password authentication failed" not in str(e):
            raise
        return
    raise AssertionError("let in")


def migrate():
    Base.metadata.create_all(engine)
    Base.metadata.create_all(engine)  # looks into the catalog and makes nothing
    found = sa.inspect(engine)
    equal("tables", sorted(found.get_table_names()), ["countries", "customers", "orders", "settings", "things"])
    equal("key", found.get_pk_constraint("orders")["constrained_columns"], ["customer_id", "id"])
    equal("foreign key", found.get_foreign_keys("orders")[0]["referred_table"], "customers")
    equal("index", found.get_indexes("orders")[0]["column_names"], ["placed"])


def count(model, *where):
    with Session(engine) as s:
        return s.scalar(select(func.count()).select_from(model).where(*where))


def crud():
    with Session(engine) as s:
        s.add_all([Country(code="CH", name="Switzerland"), Country(code="IS", name="Iceland"), Setting(name="a", value="1")])
        for i in range(1, 9):
            s.add(Customer(id=i, name=f"c{i}", country="CH", orders=[Order(id=i * 10, total=Decimal("12.50")), Order(id=i * 10 + 1, total=1)]))
        s.commit()
    with Session(engine) as s:
        c = s.get(Customer, 4)
        equal("orders", sorted(o.id for o in c.orders), [40, 41])
        c.name = "renamed"
        s.commit()
        s.execute(sa.update(Customer).values(country="IS"))
        equal("join", s.scalar(select(Country.name).join(Customer, Customer.country == Country.code).where(Customer.id == 4)), "Iceland")
        s.execute(sa.delete(Order).where(Order.customer_id == 8))
        s.delete(s.get(Customer, 8))
        s.delete(s.get(Country, "CH"))
        s.scalars(select(Setting).where(Setting.name == "a")).one().value = "2"
        s.execute(insert(Customer).values(id=5, name="x").on_conflict_do_update(index_elements=["id"], set_={"name": "upserted"}))
        s.commit()
    equal("left", count(Customer, Customer.country == "IS"), 7)
    equal("updated", (count(Customer, Customer.id == 4, Customer.name == "renamed"), count(Customer, Customer.id == 5, Customer.name == "upserted")), (1, 1))


def returning():
    with Session(engine) as s:
        new = Setting(name="returned")
        s.add(new)
        s.flush()
        equal("an id was given", new.id > 0, True)
        got = s.execute(sa.insert(Customer).values([{"id": i, "name": f"n{i}"} for i in (101, 102, 103, 104)]).returning(Customer.id, Customer.name)).all()
        equal("rows in the order of VALUES", [tuple(r) for r in got], [(i, f"n{i}") for i in (101, 102, 103, 104)])
        s.commit()


def transaction():
    with Session(engine) as s, s.begin():
        s.add_all([Customer(id=i, name="t") for i in range(201, 207)] + [Setting(name="tx")])
    with Session(engine) as s:
        s.execute(sa.delete(Customer).where(Customer.id.between(201, 206)).execution_options(synchronize_session=False))
        equal("deleted", s.scalar(select(func.count()).select_from(Customer).where(Customer.name == "t")), 0)
        s.rollback()
    equal("rolled back", count(Customer, Customer.name == "t"), 6)
    with raises("25006"), engine.connect().execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True) as c:
        c.execute(sa.delete(Customer).where(Customer.id == 201))


def savepoint():
    with Session(engine) as s, s.begin():
        s.add(Customer(id=301, name="s"))
        s.flush()
        with raises("23505"), s.begin_nested():
            s.execute(sa.insert(Customer).values([{"id": 302, "name": "s"}, {"id": 301, "name": "again"}]))
        with s.begin_nested():
            s.add(Customer(id=303, name="s"))
    equal("kept", count(Customer, Customer.name == "s"), 2)


def unique():
    with raises("23505", "customers_pkey"), Session(engine) as s:
        s.add(Customer(id=1, name="x"))
        s.commit()
    with raises("23505", "settings_name"), Session(engine) as s:
        s.add(Setting(name="tx"))
        s.commit()


def failed_block():
    with Session(engine) as s:
        with raises("22012"):
            s.execute(select(1 / (Customer.id - 1)).where(Customer.id == 1))
        with raises("25P02"):
            s.connection().exec_driver_sql("SELECT name FROM customers WHERE id = 2")
        s.rollback()
        equal("after it", s.get(Customer, 2).name, "c2")


def value(id, column, put):
    with Session(engine) as s:
        s.add(Thing(id=id, **{column: put}))
        s.commit()
    with Session(engine) as s:
        equal(column, getattr(s.get(Thing, id), column), put)


def large():
    value(8, "t", TEXT)
    value(18, "b", BLOB)


def batch():
    with Session(engine) as s:
        s.bulk_insert_mappings(Customer, [{"id": i, "name": "b"} for i in range(2001, 3001)])
        s.commit()
    equal("rows", count(Customer, Customer.name == "b"), 1000)


def cursor():
    with Session(engine) as s:
        seen = {c for c in s.scalars(select(Customer.id).where(Customer.name == "b").execution_options(stream_results=True, yield_per=100))}
    equal("rows", len(seen), 1000)


def cancel():
    with engine.connect() as c:
        timer = threading.Timer(1, c.connection.cancel)
        timer.start()
        start = time.monotonic()
        with raises("57014"):
            c.execute(text("SELECT pg_sleep(20) FROM customers WHERE id = 1"))
        equal("soon", time.monotonic() - start < 10, True)
    equal("after it", count(Customer, Customer.id == 1), 1)


def timeout():
    with raises("57014"), Session(engine) as s:
        s.execute(text("SET LOCAL statement_timeout = '200ms'"))
        s.execute(text("SELECT pg_sleep(20) FROM customers WHERE id = 2"))
    with engine.connect() as c:
        equal("gone", c.scalar(text("SHOW statement_timeout")), "0")


def pool():
    failures = []

    def work(i):
        try:
            for n in range(20):
                with Session(engine) as s, s.begin():
                    s.merge(Customer(id=600 + i, name=f"n{n}"))
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    equal("failures", failures, [])
    equal("names", count(Customer, Customer.name == "n19"), 12)


check("connect-tls", ping, engine)
check("connect-plain", lambda: ping(open_(mode="disable")))
check("wrong-password", wrong)
check("migrate", migrate)
check("crud", crud)
check("returning", returning)
check("transaction", transaction)
check("savepoint", savepoint)
none("prepared", "copy", "notify")
check("unique", unique)
check("failed-block", failed_block)
check("arrays", value, 1, "ta", TEXTS)
check("json", value, 2, "jb", DOC)
check("uuid", value, 3, "u", uuid.UUID(UUID))
check("numeric", value, 4, "n", Decimal(NUMERIC))
check("timestamps", value, 5, "tz", datetime.datetime(2024, 2, 29, 23, 59, 58, 123456, datetime.timezone.utc))
check("bytea", value, 6, "b", BYTES)
check("nulls", value, 7, "t", None)
check("large", large)
check("batch", batch)
check("cursor", cursor)
check("cancel", cancel)
check("timeout", timeout)
check("pool", pool)
