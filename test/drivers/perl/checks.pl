#!/usr/bin/perl
# The program of DBD::Pg. See ../README.md.
use strict;
use warnings;
use DBI;
use DBD::Pg qw(:pg_types :async);
$| = 1;

sub connected {
    my ($password, $sslmode) = @_;
    my $dsn = "dbi:Pg:host=$ENV{DRIVER_HOST};port=$ENV{DRIVER_PORT};dbname=$ENV{DRIVER_DATABASE};sslmode=$sslmode;sslrootcert=$ENV{DRIVER_CA}";
    return DBI->connect($dsn, $ENV{DRIVER_USER}, $password,
        { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_enable_utf8 => 0 });
}

my $db;

sub check {
    my ($name, $body) = @_;
    if (eval { $body->(); 1 }) {
        print "$name\tok\n";
    } else {
        (my $why = $@) =~ s/\s+/ /g;
        print STDERR "$name: $why\n";
        print "$name\tfail\t" . substr($why, 0, 600) . "\n";
    }
    eval { $db->rollback if $db && !$db->{AutoCommit}; };
    return;
}

sub equal {
    my ($what, $got, $want) = @_;
    $got //= 'undef';
    die "$what: '" . substr($got, 0, 200) . "' instead of '" . substr($want, 0, 200) . "'\n" if $got ne $want;
}

sub refused {
    my ($state, $body, $text) = @_;
    die "no error, but $state was due\n" if eval { $body->(); 1 };
    my $why = $@;
    equal("SQLSTATE of $why", $db->state, $state);
    die "no $text in $why\n" if $text && index($why, $text) < 0;
}

sub run {
    my ($rows, $sql, @args) = @_;
    equal("rows of $sql", $db->do($sql, undef, @args) + 0, $rows);
}
sub one { my ($sql, @args) = @_; return ($db->selectrow_array($sql, undef, @args))[0]; }

sub value {
    my ($id, $column, $put) = @_;
    run(1, "INSERT INTO things (id, $column) VALUES (?, ?)", $id, $put);
    equal($column, one("SELECT $column FROM things WHERE id = ?", $id), $put);
}

check('connect-tls', sub { $db = connected($ENV{DRIVER_PASSWORD}, 'verify-full'); equal('answer', one('SELECT 1'), 1) });
check('connect-plain', sub { my $p = connected($ENV{DRIVER_PASSWORD}, 'disable'); equal('database', $p->selectrow_array('SELECT current_database()'), $ENV{DRIVER_DATABASE}); $p->disconnect });
check('wrong-password', sub {
    die "let in\n" if eval { connected('wrong', 'verify-full'); 1 };
    die $@ if $@ !~ /password authentication failed/;
});
check('migrate', sub {
    open(my $f, '<', $ENV{DRIVER_SCHEMA}) or die $!;
    local $/;
    $db->do(<$f>);
    equal('columns', scalar(@{ $db->column_info(undef, 'public', 'things', '%')->fetchall_arrayref }), 14); # DBI's own catalog queries
    equal('key', join(',', $db->primary_key(undef, 'public', 'orders')), 'customer_id,id');
});
check('crud', sub {
    run(2, q{INSERT INTO countries VALUES ('CH', 'Switzerland'), ('IS', 'Iceland')});
    for my $id (1 .. 8) {
        run(1, 'INSERT INTO customers (id, name, country) VALUES (?, ?, ?)', $id, "c$id", 'CH');
        run(1, 'INSERT INTO orders (customer_id, id, total) VALUES (?, ?, ?)', $id, $id * 10, '12.50');
    }
    run(1, 'INSERT INTO settings (name, value) VALUES (?, ?)', 'a', '1');
    equal('join', one('SELECT k.name FROM customers c JOIN countries k ON k.code = c.country JOIN orders o ON o.customer_id = c.id WHERE c.id = ?', 4), 'Switzerland');
    equal('count', one('SELECT count(*) FROM customers'), 8);
    run(1, 'UPDATE customers SET name = ? WHERE id = ?', 'renamed', 3);
    run(8, 'UPDATE customers SET country = ?', 'IS');
    run(1, 'DELETE FROM orders WHERE customer_id = ? AND id = ?', 8, 80);
    run(1, 'DELETE FROM customers WHERE id = ?', 8);
    run(1, q{UPDATE settings SET value = '2' WHERE name = ?}, 'a');
    run(1, 'DELETE FROM countries WHERE code = ?', 'CH');
    equal('left', one('SELECT count(*) FROM customers WHERE country = ?', 'IS'), 7);
});
check('returning', sub {
    my $ids = $db->selectcol_arrayref(q{INSERT INTO customers (id, name) VALUES (101,'x'),(102,'y'),(103,'z'),(104,'w') RETURNING id});
    equal('rows in the order of VALUES', "@$ids", '101 102 103 104');
    equal('deleted', one('DELETE FROM customers WHERE id = 104 RETURNING name'), 'w');
    equal('inserted', one(q{INSERT INTO settings (name) VALUES ('returned') RETURNING name}), 'returned');
});
check('transaction', sub {
    $db->begin_work;
    run(1, q{INSERT INTO customers (id, name) VALUES (?, 't')}, $_) for 201 .. 206;
    run(1, q{INSERT INTO settings (name) VALUES ('tx')});
    $db->commit;
    $db->begin_work;
    run(6, 'DELETE FROM customers WHERE id BETWEEN 201 AND 206');
    equal('deleted', one(q{SELECT count(*) FROM customers WHERE name = 't'}), 0);
    $db->rollback;
    equal('rolled back', one(q{SELECT count(*) FROM customers WHERE name = 't'}), 6);
    $db->begin_work;
    $db->do('SET TRANSACTION READ ONLY');
    refused('25006', sub { $db->do('DELETE FROM customers WHERE id = 201') });
});
check('savepoint', sub {
    $db->begin_work;
    run(1, q{INSERT INTO customers (id, name) VALUES (301, 's')});
    $db->pg_savepoint('a');
    refused('23505', sub { $db->do(q{INSERT INTO customers (id, name) VALUES (302, 's'), (301, 'again')}) });
    $db->pg_rollback_to('a');
    run(1, q{INSERT INTO customers (id, name) VALUES (303, 's')});
    $db->pg_release('a');
    $db->commit;
    equal('kept', one(q{SELECT count(*) FROM customers WHERE name = 's'}), 2);
});
check('prepared', sub {
    my $s = $db->prepare('SELECT name FROM customers WHERE id = ?', { pg_prepare_now => 1 });
    for (1 .. 3) {
        $db->begin_work;
        for my $id (1, 2, 4, 5, 6, 7) { $s->execute($id); equal('name', ($s->fetchrow_array)[0], "c$id"); $s->finish }
        $db->commit;
    }
});
check('unique', sub {
    refused('23505', sub { run(1, q{INSERT INTO customers (id, name) VALUES (?, 'x')}, 1) }, 'customers_pkey');
    refused('23505', sub { run(1, 'INSERT INTO settings (name) VALUES (?)', 'tx') }, 'settings_name');
    equal('constraint', $db->pg_error_field('constraint'), 'settings_name');
});
check('failed-block', sub {
    $db->begin_work;
    refused('22012', sub { one('SELECT 1 / (id - 1) FROM customers WHERE id = ?', 1) });
    refused('25P02', sub { one('SELECT name FROM customers WHERE id = 2') });
    $db->rollback;
    equal('after it', one('SELECT name FROM customers WHERE id = 2'), 'c2');
});
check('arrays', sub {
    my $texts = [ 'a', 'b"c', '{d,e}', '' ];
    run(1, 'INSERT INTO things (id, ta) VALUES (?, ?)', 1, $texts);
    equal('text[]', join('|', @{ one('SELECT ta FROM things WHERE id = ?', 1) }), join('|', @$texts));
    equal('any', one('SELECT count(*) FROM customers WHERE id = ANY(?)', [ 1, 2, 3, 999 ]), 3);
});
check('json', sub { value(2, 'jb', '{"a": 1.5, "b": ["x", null, true]}') });
check('uuid', sub { value(3, 'u', '8c5a3ef0-8e4c-4d0a-9a40-0c8bb0b1d6f1') });
check('numeric', sub { value(4, 'n', '-12345678901234567890.123456789') });
check('timestamps', sub { value(5, 'tz', '2024-02-29 23:59:58.123456+00') });
check('bytea', sub {
    my $bytes = join('', map { chr } 0, 1, 255, 92, 39, 10);
    my $s = $db->prepare('INSERT INTO things (id, b) VALUES (?, ?)');
    $s->bind_param(1, 6);
    $s->bind_param(2, $bytes, { pg_type => PG_BYTEA });
    $s->execute;
    equal('bytea', one('SELECT b FROM things WHERE id = ?', 6), $bytes);
});
check('nulls', sub {
    run(1, 'INSERT INTO things (id, t) VALUES (?, ?)', 7, undef);
    equal('null', one('SELECT t IS NULL FROM things WHERE id = ?', 7), 1);
});
check('large', sub { value(8, 't', "\xc3\xa4x\\'" x 2_000_000) });
check('copy', sub {
    my $in = sub {
        $db->do('COPY things (id, t) FROM STDIN');
        $db->pg_putcopydata("$_\tcopied\\t$_\n") for @_;
        $db->pg_putcopyend;
    };
    $in->(1001 .. 2000);
    equal('value', one('SELECT t FROM things WHERE id = 1500'), "copied\t1500");
    refused('23505', sub { $in->(3001, 3002, 3003, 1001) });
    equal('nothing stored', one('SELECT count(*) FROM things WHERE id > 3000'), 0);
    $db->do('COPY things (id) TO STDOUT');
    my ($line, %seen) = ('');
    $seen{$line}++ while $db->pg_getcopydata($line) >= 0;
    equal('rows out', scalar(keys %seen), one('SELECT count(*) FROM things'));
});
check('batch', sub {
    my $s = $db->prepare('INSERT INTO customers (id, name) VALUES (?, ?)');
    my $n = $s->execute_array({}, [ 401 .. 450 ], [ ('b') x 50 ]);
    equal('done', $n, 50);
    equal('rows', one(q{SELECT count(*) FROM customers WHERE name = 'b'}), 50);
});
check('cursor', sub {
    my %seen;
    $db->begin_work;
    $db->do('DECLARE part CURSOR FOR SELECT id FROM things WHERE id > 1000');
    while (my @ids = @{ $db->selectcol_arrayref('FETCH 100 FROM part') }) { $seen{$_}++ for @ids }
    $db->do('CLOSE part');
    $db->commit;
    equal('rows', scalar(keys %seen), 1000);
});
check('cancel', sub {
    $db->do('SELECT pg_sleep(20) FROM customers WHERE id = 1', { pg_async => PG_ASYNC });
    sleep 1;
    my $start = time;
    equal('cancelled', $db->pg_cancel, 1);
    die "it took too long\n" if time - $start > 10;
    equal('after it', one('SELECT name FROM customers WHERE id = 1'), 'c1');
});
check('timeout', sub {
    $db->begin_work;
    $db->do(q{SET LOCAL statement_timeout = '200ms'});
    refused('57014', sub { $db->do('SELECT pg_sleep(20) FROM customers WHERE id = 2') });
    $db->rollback;
    equal('gone', one('SHOW statement_timeout'), 0);
});
check('notify', sub {
    $db->do('LISTEN news');
    my $other = connected($ENV{DRIVER_PASSWORD}, 'disable');
    $other->do(q{SELECT pg_notify('news', 'hello')});
    $other->disconnect;
    my ($got, $end) = (undef, time + 20);
    until ($got || time > $end) { $got = $db->pg_notifies; select(undef, undef, undef, 0.05) unless $got }
    equal('notification', $got ? "$got->[0] $got->[2]" : 'none', 'news hello');
});
print "pool\tnone\n";
