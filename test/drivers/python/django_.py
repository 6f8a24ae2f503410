"""The program of Django: its own migrations, with the applications that every project has, and its ORM."""
import datetime
import threading
import uuid
from decimal import Decimal

import django
from django.conf import settings

from checks import *

settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "django.contrib.admin",
                    "django.contrib.messages", "django.contrib.postgres", "shop"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "HOST": HOST, "PORT": PORT, "USER": USER, "PASSWORD": PASSWORD,
                           "NAME": DATABASE, "OPTIONS": {"sslmode": "verify-full", "sslrootcert": CA}}},
    USE_TZ=True, DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", SECRET_KEY="of a test",
)
django.setup()

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.db.models import F
from shop.models import Country, Customer, Setting, Thing


def again(**more):
    """The same database with other options, in a connection of its own."""
    alias = connection.copy()
    alias.settings_dict.update(more)
    try:
        with alias.cursor() as c:
            c.execute("SELECT current_database()")
            equal("database", c.fetchone()[0], DATABASE)
    finally:
        alias.close()


def wrong():
    try:
        again(PASSWORD="wrong")
    except django.db.OperationalError as e:
        if "password authentication failed" not in str(e):
            raise
        return
    raise AssertionError("let in")


def migrate():
    call_command("migrate", verbosity=0)
    call_command("migrate", verbosity=0)  # finds nothing to do
    User.objects.create_user("ada", password="x")
    equal("user", User.objects.get(username="ada").check_password("x"), True)


def crud():
    Country.objects.bulk_create([Country("CH", "Switzerland"), Country("IS", "Iceland")])
    for i in range(1, 9):
        Customer.objects.create(id=i, name=f"c{i}", country="CH")
    Setting.objects.create(name="a", value="1")
    c = Customer.objects.get(pk=4)
    c.name = "renamed"
    c.save()
    equal("updated", Customer.objects.get(id=4).name, "renamed")
    equal("count", Customer.objects.count(), 8)
    equal("all", Customer.objects.update(country="IS"), 8)
    equal("in", len(Customer.objects.in_bulk([1, 2, 3, 999])), 3)
    Customer.objects.get(pk=8).delete()
    Country.objects.get(pk="CH").delete()
    Setting.objects.filter(name="a").update(value=F("name"))
    equal("value", Setting.objects.get(name="a").value, "a")
    equal("created", Customer.objects.update_or_create(id=5, defaults={"name": "upserted"})[1], False)
    equal("left", Customer.objects.filter(country="IS").count(), 7)


def transactions():
    with transaction.atomic():
        for i in range(201, 207):
            Customer.objects.create(id=i, name="t")
        Setting.objects.create(name="tx")
    try:
        with transaction.atomic():
            Customer.objects.filter(id__range=(201, 206)).delete()
            equal("deleted", Customer.objects.filter(name="t").count(), 0)
            raise KeyError
    except KeyError:
        equal("rolled back", Customer.objects.filter(name="t").count(), 6)


def savepoint():
    with transaction.atomic():
        Customer.objects.create(id=301, name="s")
        with raises("23505"), transaction.atomic():
            Customer.objects.bulk_create([Customer(id=302, name="s"), Customer(id=301, name="again")])
        with transaction.atomic():
            Customer.objects.create(id=303, name="s")
    equal("kept", Customer.objects.filter(name="s").count(), 2)


def unique():
    with raises("23505", "customers_pkey"):
        Customer.objects.create(id=1, name="x")
    with raises("23505", "settings_name"):
        Setting.objects.create(name="tx")


def failed_block():
    with connection.cursor() as c:
        c.execute("BEGIN")
        with raises("22012"):
            c.execute("SELECT 1 / (id - 1) FROM customers WHERE id = 1")
        with raises("25P02"):
            c.execute("SELECT name FROM customers WHERE id = 2")
        c.execute("ROLLBACK")
    equal("after it", Customer.objects.get(id=2).name, "c2")


def value(id, column, put):
    Thing.objects.create(id=id, **{column: put})
    got = getattr(Thing.objects.get(id=id), column)
    equal(column, bytes(got) if isinstance(got, memoryview) else got, put)


def large():
    value(8, "t", TEXT)
    value(18, "b", BLOB)


def batch():
    Customer.objects.bulk_create([Customer(id=i, name="b") for i in range(2001, 3001)], batch_size=200)
    equal("rows", Customer.objects.filter(name="b").count(), 1000)


def returning():
    new = Setting.objects.create(name="returned")
    equal("an id was given", new.id > 0, True)
    equal("many ids", all(s.id for s in Setting.objects.bulk_create([Setting(name="r1"), Setting(name="r2")])), True)


def cursor():
    equal("rows", len({c.id for c in Customer.objects.filter(name="b").iterator(chunk_size=100)}), 1000)


def timeout():
    with raises("57014"), transaction.atomic(), connection.cursor() as c:
        c.execute("SET LOCAL statement_timeout = '200ms'")
        c.execute("SELECT pg_sleep(20) FROM customers WHERE id = 2")
    with connection.cursor() as c:
        c.execute("SHOW statement_timeout")
        equal("gone", c.fetchone()[0], "0")


def cancel():
    connection.ensure_connection()
    timer = threading.Timer(1, connection.connection.cancel)
    timer.start()
    with raises("57014"), connection.cursor() as c:
        c.execute("SELECT pg_sleep(20) FROM customers WHERE id = 1")
    equal("after it", Customer.objects.filter(id=1).count(), 1)


check("connect-tls", connection.ensure_connection)
check("connect-plain", lambda: again(OPTIONS={"sslmode": "disable"}))
check("wrong-password", wrong)
check("migrate", migrate)
check("crud", crud)
check("returning", returning)
check("transaction", transactions)
check("savepoint", savepoint)
none("prepared", "copy", "notify", "pool")
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
connections.close_all()
