import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.*;
import java.time.*;
import java.util.*;
import java.util.concurrent.*;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PSQLException;

/** The program of pgJDBC. Its argument is prepareThreshold: 1 prepares at once, 0 never, -1 at once and in binary. */
public class Checks {
  static final String DB = env("DRIVER_DATABASE");
  static final String UUID_TEXT = "8c5a3ef0-8e4c-4d0a-9a40-0c8bb0b1d6f1";
  static final String JSON = "{\"a\": 1.5, \"b\": [\"x\", null, true]}";
  static String threshold = "1";
  static Connection c;

  interface Body { void run() throws Exception; }

  static String env(String name) { return System.getenv(name); }

  static Connection connect(String password, String sslmode, String... more) throws SQLException {
    Properties p = new Properties();
    p.setProperty("user", env("DRIVER_USER"));
    p.setProperty("password", password);
    p.setProperty("sslmode", sslmode);
    p.setProperty("sslrootcert", env("DRIVER_CA"));
    p.setProperty("prepareThreshold", threshold);
    p.setProperty("socketTimeout", "60");
    for (int i = 0; i < more.length; i += 2) p.setProperty(more[i], more[i + 1]);
    return DriverManager.getConnection("jdbc:postgresql://" + env("DRIVER_HOST") + ":" + env("DRIVER_PORT") + "/" + DB, p);
  }

  static Connection connect() throws SQLException { return connect(env("DRIVER_PASSWORD"), "verify-full"); }

  static void check(String name, Body body) {
    try {
      body.run();
      System.out.println(name + "\tok");
    } catch (Throwable e) {
      e.printStackTrace();
      System.out.println(name + "\tfail\t" + String.valueOf(e.getMessage()).replaceAll("\\s+", " "));
    }
    try {
      if (c != null && !c.getAutoCommit()) { c.rollback(); c.setAutoCommit(true); }
    } catch (SQLException e) { e.printStackTrace(); }
  }

  static void equal(String what, Object got, Object want) {
    if (!Objects.deepEquals(got, want)) throw new AssertionError(what + ": " + got + " instead of " + want);
  }

  static void refused(String state, String constraint, Body body) throws Exception {
    try {
      body.run();
    } catch (SQLException e) {
      if (e instanceof BatchUpdateException && e.getNextException() != null) e = e.getNextException();
      equal("SQLSTATE of " + e.getMessage(), e.getSQLState(), state);
      if (constraint != null) equal("constraint", ((PSQLException) e).getServerErrorMessage().getConstraint(), constraint);
      return;
    }
    throw new AssertionError("no error, but " + state + " was due");
  }

  static PreparedStatement bind(PreparedStatement s, Object... args) throws SQLException {
    for (int i = 0; i < args.length; i++) s.setObject(i + 1, args[i]);
    return s;
  }

  static void run(long rows, String sql, Object... args) throws SQLException {
    try (PreparedStatement s = bind(c.prepareStatement(sql), args)) { equal("rows of " + sql, (long) s.executeUpdate(), rows); }
  }

  static Object one(String sql, Object... args) throws SQLException {
    try (PreparedStatement s = bind(c.prepareStatement(sql), args); ResultSet r = s.executeQuery()) {
      if (!r.next()) throw new AssertionError("no row of " + sql);
      return r.getObject(1);
    }
  }

  static void plain(String sql) throws SQLException { try (Statement s = c.createStatement()) { s.execute(sql); } }

  public static void main(String[] args) throws Exception {
    threshold = args[0];
    check("connect-tls", () -> { c = connect(); equal("answer", one("SELECT 1"), 1); });
    check("connect-plain", () -> { try (Connection p = connect(env("DRIVER_PASSWORD"), "disable")) { equal("valid", p.isValid(10), true); } });
    check("wrong-password", () -> refused("28P01", null, () -> connect("wrong", "verify-full")));
    check("migrate", () -> {
      plain(Files.readString(Path.of(env("DRIVER_SCHEMA"))));
      DatabaseMetaData m = c.getMetaData(); // JDBC's own catalog queries
      int columns = 0;
      try (ResultSet r = m.getColumns(null, "public", "things", null)) { while (r.next()) columns++; }
      equal("columns", columns, 14);
      try (ResultSet r = m.getPrimaryKeys(null, "public", "orders")) { equal("a key", r.next(), true); }
      try (ResultSet r = m.getImportedKeys(null, "public", "orders")) { equal("a foreign key", r.next(), true); }
      try (ResultSet r = m.getIndexInfo(null, "public", "settings", true, false)) { equal("an index", r.next(), true); }
    });
    check("crud", Checks::crud);
    check("returning", Checks::returning);
    check("transaction", Checks::transaction);
    check("savepoint", Checks::savepoint);
    check("prepared", () -> {
      try (PreparedStatement s = c.prepareStatement("SELECT name FROM customers WHERE id = ?")) {
        for (int round = 0; round < 8; round++) { // more than JDBC's own threshold
          c.setAutoCommit(false);
          for (long id : new long[] {1, 2, 4, 5, 6, 7}) {
            s.setLong(1, id);
            try (ResultSet r = s.executeQuery()) { equal("a row", r.next(), true); equal("name", r.getString(1), "c" + id); }
          }
          c.commit();
        }
      }
    });
    check("unique", () -> {
      refused("23505", "customers_pkey", () -> run(1, "INSERT INTO customers (id, name) VALUES (?, 'x')", 1L));
      refused("23505", "settings_name", () -> run(1, "INSERT INTO settings (name) VALUES (?)", "tx"));
    });
    check("failed-block", () -> {
      c.setAutoCommit(false);
      refused("22012", null, () -> one("SELECT 1 / (id - 1) FROM customers WHERE id = ?", 1L));
      refused("25P02", null, () -> one("SELECT name FROM customers WHERE id = 2"));
      c.rollback();
      equal("after it", one("SELECT name FROM customers WHERE id = 2"), "c2");
    });
    check("arrays", () -> {
      String[] texts = {"a", "b\"c", "{d,e}", ""};
      Array a = c.createArrayOf("text", texts);
      run(1, "INSERT INTO things (id, ta, ia) VALUES (?, ?, ?)", 1L, a, c.createArrayOf("int4", new Integer[] {1, -2, 3}));
      equal("text[]", ((Array) one("SELECT ta FROM things WHERE id = ?", 1L)).getArray(), texts);
      equal("int[]", ((Array) one("SELECT ia FROM things WHERE id = ?", 1L)).getArray(), new Integer[] {1, -2, 3});
      equal("any", one("SELECT count(*) FROM customers WHERE id = ANY(?)", c.createArrayOf("int8", new Long[] {1L, 2L, 3L, 999L})), 3L);
    });
    check("json", () -> {
      run(1, "INSERT INTO things (id, j, jb) VALUES (?, ?::json, ?::jsonb)", 2L, JSON, JSON);
      equal("jsonb", one("SELECT jb::text FROM things WHERE id = ?", 2L), JSON);
    });
    check("uuid", () -> {
      run(1, "INSERT INTO things (id, u) VALUES (?, ?)", 3L, UUID.fromString(UUID_TEXT));
      equal("uuid", one("SELECT u FROM things WHERE id = ?", 3L), UUID.fromString(UUID_TEXT));
    });
    check("numeric", () -> {
      BigDecimal n = new BigDecimal("-12345678901234567890.123456789");
      run(1, "INSERT INTO things (id, n, f) VALUES (?, ?, ?)", 4L, n, 0.1);
      equal("numeric", one("SELECT n FROM things WHERE id = ?", 4L), n);
      equal("float", one("SELECT f FROM things WHERE id = ?", 4L), 0.1);
    });
    check("timestamps", () -> {
      LocalDateTime at = LocalDateTime.of(2024, 2, 29, 23, 59, 58, 123456000);
      run(1, "INSERT INTO things (id, ts, tz, d) VALUES (?, ?, ?, ?)", 5L, at, at.atOffset(ZoneOffset.UTC), at.toLocalDate());
      try (PreparedStatement s = bind(c.prepareStatement("SELECT ts, tz, d FROM things WHERE id = ?"), 5L); ResultSet r = s.executeQuery()) {
        r.next();
        equal("timestamp", r.getObject(1, LocalDateTime.class), at);
        equal("timestamptz", r.getObject(2, OffsetDateTime.class).toInstant(), at.toInstant(ZoneOffset.UTC));
        equal("date", r.getObject(3, LocalDate.class), at.toLocalDate());
      }
    });
    check("bytea", () -> {
      byte[] b = {0, 1, -1, 92, 39, 10};
      run(1, "INSERT INTO things (id, b) VALUES (?, ?)", 6L, b);
      equal("bytea", one("SELECT b FROM things WHERE id = ?", 6L), b);
    });
    check("nulls", () -> {
      try (PreparedStatement s = c.prepareStatement("INSERT INTO things (id, t, ia) VALUES (7, ?, ?)")) {
        s.setNull(1, Types.VARCHAR);
        s.setNull(2, Types.ARRAY);
        equal("rows", s.executeUpdate(), 1);
      }
      equal("null", one("SELECT t FROM things WHERE id = 7 AND ia IS NULL"), null);
    });
    check("large", () -> {
      String text = "äx\\'".repeat(2_000_000);
      byte[] blob = new byte[10_000_000];
      for (int i = 0; i < blob.length; i++) blob[i] = (byte) i;
      run(1, "INSERT INTO things (id, t, b) VALUES (?, ?, ?)", 8L, text, blob);
      equal("text", text.equals(one("SELECT t FROM things WHERE id = ?", 8L)), true);
      equal("bytea", Arrays.equals(blob, (byte[]) one("SELECT b FROM things WHERE id = ?", 8L)), true);
    });
    check("copy", Checks::copy);
    check("batch", Checks::batch);
    check("cursor", () -> {
      c.setAutoCommit(false); // a row limit on Execute needs a transaction
      Set<Long> seen = new HashSet<>();
      try (PreparedStatement s = c.prepareStatement("SELECT id FROM things WHERE id > ?")) {
        s.setFetchSize(100);
        s.setLong(1, 1000);
        try (ResultSet r = s.executeQuery()) { while (r.next()) seen.add(r.getLong(1)); }
      }
      c.commit();
      equal("rows", seen.size(), 1000);
    });
    check("cancel", () -> {
      try (Statement s = c.createStatement()) {
        ScheduledExecutorService later = Executors.newSingleThreadScheduledExecutor();
        later.schedule(() -> { s.cancel(); return null; }, 1, TimeUnit.SECONDS);
        refused("57014", null, () -> s.execute("SELECT pg_sleep(20) FROM customers WHERE id = 1"));
        later.shutdown();
      }
      equal("after it", one("SELECT name FROM customers WHERE id = 1"), "c1");
    });
    check("timeout", () -> {
      c.setAutoCommit(false);
      plain("SET LOCAL statement_timeout = '200ms'");
      refused("57014", null, () -> plain("SELECT pg_sleep(20) FROM customers WHERE id = 2"));
      c.rollback();
      equal("gone", one("SHOW statement_timeout"), "0");
    });
    check("notify", () -> {
      try (Connection l = connect(); Statement s = l.createStatement()) {
        s.execute("LISTEN news");
        one("SELECT pg_notify('news', ?)", "hello");
        PGNotification[] got = l.unwrap(PGConnection.class).getNotifications(20_000);
        equal("notifications", got == null ? 0 : got.length, 1);
        equal("payload", got[0].getName() + got[0].getParameter(), "newshello");
      }
    });
    System.out.println("pool\tnone");
    System.exit(0);
  }

  static void crud() throws Exception {
    run(2, "INSERT INTO countries VALUES ('CH', 'Switzerland'), ('IS', 'Iceland')");
    for (long id = 1; id <= 8; id++) {
      run(1, "INSERT INTO customers (id, name, country) VALUES (?, ?, ?)", id, "c" + id, "CH");
      run(1, "INSERT INTO orders (customer_id, id, total) VALUES (?, ?, ?)", id, id * 10, new BigDecimal("12.50"));
    }
    run(1, "INSERT INTO settings (name, value) VALUES (?, ?)", "a", "1");
    equal("join", one("SELECT k.name FROM customers c JOIN countries k ON k.code = c.country JOIN orders o ON o.customer_id = c.id WHERE c.id = ?", 4L), "Switzerland");
    equal("count", one("SELECT count(*) FROM customers"), 8L);
    run(1, "UPDATE customers SET name = ? WHERE id = ?", "renamed", 3);
    equal("updated", one("SELECT name FROM customers WHERE id = ?", 3), "renamed");
    run(8, "UPDATE customers SET country = ?", "IS");
    run(1, "DELETE FROM orders WHERE customer_id = ? AND id = ?", 8L, 80L);
    run(1, "DELETE FROM customers WHERE id = ?", 8L);
    run(1, "UPDATE settings SET value = '2' WHERE name = ?", "a");
    run(1, "DELETE FROM countries WHERE code = ?", "CH");
    equal("left", one("SELECT count(*) FROM customers WHERE country = ?", "IS"), 7L);
  }

  static void returning() throws Exception {
    List<Long> ids = new ArrayList<>();
    try (PreparedStatement s = c.prepareStatement("INSERT INTO customers (id, name) VALUES (101,'x'),(102,'y'),(103,'z'),(104,'w')", Statement.RETURN_GENERATED_KEYS)) {
      s.executeUpdate();
      try (ResultSet r = s.getGeneratedKeys()) { while (r.next()) ids.add(r.getLong("id")); }
    }
    equal("rows in the order of VALUES", ids, List.of(101L, 102L, 103L, 104L));
    equal("deleted", one("DELETE FROM customers WHERE id = ? RETURNING name", 104L), "w");
    equal("inserted", one("INSERT INTO settings (name) VALUES ('returned') RETURNING name"), "returned");
  }

  static void transaction() throws Exception {
    c.setAutoCommit(false);
    for (long id = 201; id <= 206; id++) run(1, "INSERT INTO customers (id, name) VALUES (?, 't')", id);
    run(1, "INSERT INTO settings (name) VALUES ('tx')");
    c.commit();
    run(6, "DELETE FROM customers WHERE id BETWEEN ? AND ?", 201L, 206L);
    equal("deleted", one("SELECT count(*) FROM customers WHERE name = 't'"), 0L);
    c.rollback();
    equal("rolled back", one("SELECT count(*) FROM customers WHERE name = 't'"), 6L);
    c.commit();
    c.setReadOnly(true);
    refused("25006", null, () -> run(1, "DELETE FROM customers WHERE id = ?", 201L));
    c.rollback();
    c.setReadOnly(false);
  }

  static void savepoint() throws Exception {
    c.setAutoCommit(false);
    run(1, "INSERT INTO customers (id, name) VALUES (301, 's')");
    Savepoint a = c.setSavepoint("a");
    refused("23505", null, () -> run(2, "INSERT INTO customers (id, name) VALUES (302, 's'), (301, 'again')"));
    c.rollback(a);
    run(1, "INSERT INTO customers (id, name) VALUES (303, 's')");
    c.releaseSavepoint(a);
    c.commit();
    equal("kept", one("SELECT count(*) FROM customers WHERE name = 's'"), 2L);
  }

  static void copy() throws Exception {
    CopyManager m = c.unwrap(PGConnection.class).getCopyAPI();
    StringBuilder lines = new StringBuilder();
    for (int id = 1001; id <= 2000; id++) lines.append(id).append("\tcopied\\t").append(id).append('\n');
    equal("copied", m.copyIn("COPY things (id, t) FROM STDIN", new StringReader(lines.toString())), 1000L);
    equal("value", one("SELECT t FROM things WHERE id = ?", 1500L), "copied\t1500");
    refused("23505", null, () -> m.copyIn("COPY things (id) FROM STDIN", new StringReader("3001\n3002\n3003\n1001\n")));
    equal("nothing stored", one("SELECT count(*) FROM things WHERE id > 3000"), 0L);
    StringWriter out = new StringWriter();
    m.copyOut("COPY things (id) TO STDOUT", out);
    equal("rows out", (long) new HashSet<>(List.of(out.toString().trim().split("\n"))).size(), one("SELECT count(*) FROM things"));
  }

  static void batch() throws Exception {
    for (String rewrite : new String[] {"false", "true"}) {
      try (Connection b = connect(env("DRIVER_PASSWORD"), "verify-full", "reWriteBatchedInserts", rewrite)) {
        b.setAutoCommit(false);
        int base = rewrite.equals("true") ? 500 : 400;
        try (PreparedStatement s = b.prepareStatement("INSERT INTO customers (id, name) VALUES (?, ?)")) {
          for (int i = 0; i < 100; i++) { s.setLong(1, base + i); s.setString(2, "b"); s.addBatch(); }
          equal("counts", s.executeBatch().length, 100);
          b.commit();
          for (long id : new long[] {611, 612, base}) { s.setLong(1, id); s.setString(2, "b"); s.addBatch(); }
          refused("23505", "customers_pkey", s::executeBatch);
          b.rollback();
        }
      }
    }
    equal("rows", one("SELECT count(*) FROM customers WHERE name = 'b'"), 200L);
  }
}
