import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='Country',
            fields=[
                ('code', models.TextField(primary_key=True, serialize=False)),
                ('name', models.TextField()),
            ],
            options={
                'db_table': 'countries',
            },
        ),
        migrations.CreateModel(
            name='Customer',
            fields=[
                ('id', models.BigIntegerField(primary_key=True, serialize=False)),
                ('name', models.TextField()),
                ('country', models.TextField(null=True)),
            ],
            options={
                'db_table': 'customers',
            },
        ),
        migrations.CreateModel(
            name='Setting',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.TextField()),
                ('value', models.TextField(null=True)),
                ('changed', models.DateTimeField(auto_now=True)),
            ],
            options={
                'db_table': 'settings',
            },
        ),
        migrations.CreateModel(
            name='Thing',
            fields=[
                ('id', models.BigIntegerField(primary_key=True, serialize=False)),
                ('n', models.DecimalField(decimal_places=9, max_digits=40, null=True)),
                ('u', models.UUIDField(null=True)),
                ('jb', models.JSONField(null=True)),
                ('tz', models.DateTimeField(null=True)),
                ('b', models.BinaryField(null=True)),
                ('ta', django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), null=True, size=None)),
                ('t', models.TextField(null=True)),
            ],
            options={
                'db_table': 'things',
            },
        ),
        migrations.AddConstraint(
            model_name='setting',
            constraint=models.UniqueConstraint(fields=('name',), name='settings_name'),
        ),
    ]
