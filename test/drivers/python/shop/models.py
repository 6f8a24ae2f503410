"""The tables of the Django program: customers, orders and things are sharded, countries is a reference table."""
from django.contrib.postgres.fields import ArrayField
from django.db import models


class Country(models.Model):
    code = models.TextField(primary_key=True)
    name = models.TextField()

    class Meta:
        db_table = "countries"


class Customer(models.Model):
    id = models.BigIntegerField(primary_key=True)
    name = models.TextField()
    country = models.TextField(null=True)

    class Meta:
        db_table = "customers"


class Setting(models.Model):
    name = models.TextField()
    value = models.TextField(null=True)
    changed = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "settings"
        constraints = [models.UniqueConstraint(fields=["name"], name="settings_name")]


class Thing(models.Model):
    id = models.BigIntegerField(primary_key=True)
    n = models.DecimalField(max_digits=40, decimal_places=9, null=True)
    u = models.UUIDField(null=True)
    jb = models.JSONField(null=True)
    tz = models.DateTimeField(null=True)
    b = models.BinaryField(null=True)
    ta = ArrayField(models.TextField(), null=True)
    t = models.TextField(null=True)

    class Meta:
        db_table = "things"
