# The program of ruby-pg. See ../README.md.
require 'pg'
require 'json'
require 'bigdecimal'
$stdout.sync = true

ENVIRONMENT = { host: ENV['DRIVER_HOST'], port: ENV['DRIVER_PORT'], user: ENV['DRIVER_USER'], dbname: ENV['DRIVER_DATABASE'] }.freeze

def connect(password: ENV['DRIVER_PASSWORD'], sslmode: 'verify-full')
  PG.connect(**ENVIRONMENT, password: password, sslmode: sslmode, sslrootcert: ENV['DRIVER_CA'])
end

def check(name)
  yield
  puts "#{name}\tok"
rescue StandardError => e
  warn e.full_message(highlight: false)
  puts "#{name}\tfail\t#{e.message.gsub(/\s+/, ' ')[0, 600]}"
ensure
  $c.exec('ROLLBACK') if $c && !$c.finished? && $c.transaction_status != PG::PQTRANS_IDLE
end

def equal(what, got, want)
  raise "#{what}: #{got.inspect[0, 200]} instead of #{want.inspect[0, 200]}" unless got == want
end

def refused(state, constraint = nil)
  yield
rescue PG::Error => e
  equal('SQLSTATE', e.result&.error_field(PG::PG_DIAG_SQLSTATE), state)
  equal('constraint', e.result.error_field(PG::PG_DIAG_CONSTRAINT_NAME), constraint) if constraint
else
  raise "no error, but #{state} was due"
end

def run(rows, sql, *args) = equal("rows of #{sql}", $c.exec_params(sql, args).cmd_tuples, rows)
def one(sql, *args) = $c.exec_params(sql, args).getvalue(0, 0)

def value(id, column, put, want = put)
  run(1, "INSERT INTO things (id, #{column}) VALUES ($1, $2)", id, put)
  equal(column, one("SELECT #{column} FROM things WHERE id = $1", id), want)
end

check('connect-tls') { $c = connect; equal('TLS', $c.ssl_in_use?, true) }
check('connect-plain') { c = connect(sslmode: 'disable'); equal('database', c.exec('SELECT current_database()').getvalue(0, 0), ENV['DRIVER_DATABASE']); c.close }
check('wrong-password') do
  connect(password: 'wrong')
  raise 'let in'
rescue PG::ConnectionBad => e
  raise unless e.message.include?('password authentication failed')
end
check('migrate') { $c.exec(File.read(ENV['DRIVER_SCHEMA'])) }
check('crud') do
  run(2, "INSERT INTO countries VALUES ('CH', 'Switzerland'), ('IS', 'Iceland')")
  (1..8).each do |id|
    run(1, 'INSERT INTO customers (id, name, country) VALUES ($1, $2, $3)', id, "c#{id}", 'CH')
    run(1, 'INSERT INTO orders (customer_id, id, total) VALUES ($1, $2, $3)', id, id * 10, '12.50')
  end
  run(1, 'INSERT INTO settings (name, value) VALUES ($1, $2)', 'a', '1')
  equal('join', one('SELECT k.name FROM customers c JOIN countries k ON k.code = c.country JOIN orders o ON o.customer_id = c.id WHERE c.id = $1', 4), 'Switzerland')
  equal('count', one('SELECT count(*) FROM customers'), '8')
  run(1, 'UPDATE customers SET name = $2 WHERE id = $1', 3, 'renamed')
  run(8, 'UPDATE customers SET country = $1', 'IS')
  run(1, 'DELETE FROM orders WHERE customer_id = $1 AND id = $2', 8, 80)
  run(1, 'DELETE FROM customers WHERE id = $1', 8)
  run(1, "UPDATE settings SET value = '2' WHERE name = $1", 'a')
  run(1, 'DELETE FROM countries WHERE code = $1', 'CH')
  equal('left', one('SELECT count(*) FROM customers WHERE country = $1', 'IS'), '7')
end
check('returning') do
  got = $c.exec("INSERT INTO customers (id, name) VALUES (101,'x'),(102,'y'),(103,'z'),(104,'w') RETURNING id, name").values
  equal('rows in the order of VALUES', got, [%w[101 x], %w[102 y], %w[103 z], %w[104 w]])
  equal('deleted', one('DELETE FROM customers WHERE id = 104 RETURNING name'), 'w')
  equal('inserted', one("INSERT INTO settings (name) VALUES ('returned') RETURNING name"), 'returned')
end
check('transaction') do
  $c.transaction do
    (201..206).each { |id| run(1, "INSERT INTO customers (id, name) VALUES ($1, 't')", id) }
    run(1, "INSERT INTO settings (name) VALUES ('tx')")
  end
  begin
    $c.transaction do
      run(6, 'DELETE FROM customers WHERE id BETWEEN 201 AND 206')
      equal('deleted', one("SELECT count(*) FROM customers WHERE name = 't'"), '0')
      raise IndexError
    end
  rescue IndexError
    equal('rolled back', one("SELECT count(*) FROM customers WHERE name = 't'"), '6')
  end
  $c.exec('BEGIN READ ONLY')
  refused('25006') { $c.exec('DELETE FROM customers WHERE id = 201') }
end
check('savepoint') do
  $c.transaction do
    $c.exec("INSERT INTO customers (id, name) VALUES (301, 's')")
    $c.exec('SAVEPOINT a')
    refused('23505') { $c.exec("INSERT INTO customers (id, name) VALUES (302, 's'), (301, 'again')") }
    $c.exec('ROLLBACK TO SAVEPOINT a')
    $c.exec("INSERT INTO customers (id, name) VALUES (303, 's')")
  end
  equal('kept', one("SELECT count(*) FROM customers WHERE name = 's'"), '2')
end
check('prepared') do
  $c.prepare('by_id', 'SELECT name FROM customers WHERE id = $1')
  3.times do
    $c.transaction { [1, 2, 4, 5, 6, 7].each { |id| equal('name', $c.exec_prepared('by_id', [id]).getvalue(0, 0), "c#{id}") } }
  end
  equal('described', $c.describe_prepared('by_id').fields, ['name'])
end
check('unique') do
  refused('23505', 'customers_pkey') { run(1, "INSERT INTO customers (id, name) VALUES ($1, 'x')", 1) }
  refused('23505', 'settings_name') { run(1, 'INSERT INTO settings (name) VALUES ($1)', 'tx') }
end
check('failed-block') do
  $c.exec('BEGIN')
  refused('22012') { one('SELECT 1 / (id - 1) FROM customers WHERE id = $1', 1) }
  refused('25P02') { one('SELECT name FROM customers WHERE id = 2') }
  $c.exec('ROLLBACK')
  equal('after it', one('SELECT name FROM customers WHERE id = 2'), 'c2')
end
check('arrays') do
  texts = ['a', 'b"c', '{d,e}', '']
  encoded = PG::TextEncoder::Array.new(elements_type: PG::TextEncoder::String.new).encode(texts)
  run(1, 'INSERT INTO things (id, ta) VALUES ($1, $2)', 1, encoded)
  equal('text[]', PG::TextDecoder::Array.new.decode(one('SELECT ta FROM things WHERE id = $1', 1)), texts)
  equal('any', one('SELECT count(*) FROM customers WHERE id = ANY($1)', '{1,2,3,999}'), '3')
end
check('json') do
  doc = { 'a' => 1.5, 'b' => ['x', nil, true] }
  run(1, 'INSERT INTO things (id, jb) VALUES ($1, $2)', 2, JSON.generate(doc))
  equal('jsonb', JSON.parse(one('SELECT jb FROM things WHERE id = $1', 2)), doc)
end
check('uuid') { value(3, 'u', '8c5a3ef0-8e4c-4d0a-9a40-0c8bb0b1d6f1') }
check('numeric') { value(4, 'n', '-12345678901234567890.123456789') }
check('timestamps') { value(5, 'tz', '2024-02-29 23:59:58.123456+00') }
check('bytea') do
  bytes = [0, 1, 255, 92, 39, 10].pack('C*')
  run(1, 'INSERT INTO things (id, b) VALUES ($1, $2)', 6, { value: bytes, format: 1 })
  equal('in binary', $c.exec_params('SELECT b FROM things WHERE id = $1', [6], 1).getvalue(0, 0), bytes)
end
check('nulls') { value(7, 't', nil) }
check('large') do
  text = "äx\\'" * 2_000_000
  run(1, 'INSERT INTO things (id, t) VALUES ($1, $2)', 8, text)
  equal('text', one('SELECT t FROM things WHERE id = $1', 8) == text, true)
end
check('copy') do
  copy_in = ->(ids) { $c.copy_data('COPY things (id, t) FROM STDIN') { ids.each { |id| $c.put_copy_data("#{id}\tcopied\\t#{id}\n") } } }
  copy_in.call(1001..2000)
  equal('value', one('SELECT t FROM things WHERE id = 1500'), "copied\t1500")
  refused('23505') { copy_in.call([3001, 3002, 3003, 1001]) }
  equal('nothing stored', one('SELECT count(*) FROM things WHERE id > 3000'), '0')
  out = []
  $c.copy_data('COPY things (id) TO STDOUT') { while (line = $c.get_copy_data) do out << line end }
  equal('rows out', out.uniq.size.to_s, one('SELECT count(*) FROM things'))
end
check('batch') do
  $c.enter_pipeline_mode
  (401..420).each { |id| $c.send_query_params("INSERT INTO customers (id, name) VALUES ($1, 'b')", [id]) }
  $c.pipeline_sync
  done = 0
  loop do
    r = $c.get_result
    next unless r
    break if r.result_status == PG::PGRES_PIPELINE_SYNC

    r.check
    done += 1
  end
  $c.exit_pipeline_mode
  equal('done', done, 20)
  equal('rows', one("SELECT count(*) FROM customers WHERE name = 'b'"), '20')
end
check('cursor') do
  seen = []
  $c.transaction do
    $c.exec('DECLARE part CURSOR FOR SELECT id FROM things WHERE id > 1000')
    until (rows = $c.exec('FETCH 100 FROM part').column_values(0)).empty? do seen.concat(rows) end
    $c.exec('CLOSE part')
  end
  equal('rows', seen.uniq.size, 1000)
end
check('cancel') do
  $c.send_query('SELECT pg_sleep(20) FROM customers WHERE id = 1')
  sleep 1
  equal('cancel', $c.cancel, nil)
  refused('57014') { $c.get_last_result }
  equal('after it', one('SELECT name FROM customers WHERE id = 1'), 'c1')
end
check('timeout') do
  $c.exec('BEGIN')
  $c.exec("SET LOCAL statement_timeout = '200ms'")
  refused('57014') { $c.exec('SELECT pg_sleep(20) FROM customers WHERE id = 2') }
  $c.exec('ROLLBACK')
  equal('gone', one('SHOW statement_timeout'), '0')
end
check('notify') do
  $c.exec('LISTEN news')
  other = connect
  other.exec_params("SELECT pg_notify('news', $1)", ['hello'])
  other.close
  got = nil
  $c.wait_for_notify(20) { |channel, _pid, payload| got = [channel, payload] }
  equal('notification', got, %w[news hello])
end
puts "pool\tnone"
