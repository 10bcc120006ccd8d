// Fifty clients with pgjdbc, a thread each: named statements from the first execution on, fetch size, batches, COPY. Half
// of them with settings at the start-up, half with SET and the methods of java.sql.Connection.

import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Properties;
import java.util.TimeZone;
import java.util.UUID;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.TimeUnit;
import org.postgresql.PGConnection;
import org.postgresql.util.PGobject;

public class PooledJdbc {
    static final int CLIENTS = number("PGHERD_CLIENTS", 50);
    static final int ROUNDS = number("PGHERD_ROUNDS", 1);
    // One client changes a setting behind its own back: its checks must notice.
    static final boolean BREAKS = "1".equals(System.getenv("PGHERD_BREAKS"));
    static final int FAILURES_SHOWN_MAX = 12;

    // With what noon of 1 July 2024 is in it, and with what day '01/02/03' is. See pooled.py, which asks the same.
    static final Map<String, Long> NOON = new LinkedHashMap<>();
    static final Map<String, String> DAY = new LinkedHashMap<>();
    // The zone of this Java machine, which the driver tells the server at the start-up, whatever `options` says.
    static final String OWN_ZONE = TimeZone.getDefault().getID();

    static {
        NOON.put("Europe/Prague", 1719828000L);
        NOON.put("Asia/Tokyo", 1719802800L);
        NOON.put("America/New_York", 1719849600L);
        NOON.put("UTC", 1719835200L);
        NOON.put("Asia/Kathmandu", 1719814500L);
        NOON.put("Asia/Kolkata", 1719815400L);
        DAY.put("ISO, MDY", "2003-01-02");
        DAY.put("ISO, DMY", "2003-02-01");
        DAY.put("ISO, YMD", "2001-02-03");
    }

    static final List<String> SETTINGS = List.of("application_name", "TimeZone", "DateStyle", "search_path", "work_mem",
            "statement_timeout", "app.tenant");
    static final String READ = "SELECT ?::text AS mark, current_setting('" + String.join("'), current_setting('", SETTINGS)
            + "'), current_user::text, '01/02/03'::date::text, extract(epoch FROM '2024-07-01 12:00'::timestamptz)::bigint,"
            + " (SELECT name::text FROM here), (SELECT string_agg(body, ',') FROM notes)";
    static final String INSERT = "INSERT INTO marks (client, what, mark) VALUES (?, ?, ?)";
    static final String MANY = "SELECT ?::text || '-' || n AS mark FROM generate_series(1, 120) AS n";

    static int checks = 0;
    static final List<String> failures = new ArrayList<>();

    static int number(String name, int otherwise) {
        String text = System.getenv(name);
        return text == null ? otherwise : Integer.parseInt(text);
    }

    static synchronized void check(int who, String what, Object found, Object expected) {
        checks++;
        if (!Objects.equals(found, expected)) {
            failures.add("client " + who + ", " + what + ": " + found + " instead of " + expected);
        }
    }

    static synchronized void broke(int who, Throwable error) {
        StackTraceElement at = Arrays.stream(error.getStackTrace())
                .filter(frame -> frame.getClassName().startsWith("PooledJdbc")).findFirst().orElse(null);
        failures.add("client " + who + ", at " + at + ": " + error);
    }

    interface Work {
        void run() throws Exception;
    }

    /** What one client has set, as it knows it, its connection, and its marks, which nobody else has. */
    static class Client {
        final int number;
        final String user;
        final boolean atStartup;
        final boolean simple;
        final Map<String, String> settings = new HashMap<>();
        final Map<String, String> startup = new HashMap<>();
        Connection connection;
        int marks = 0;

        Client(int number) {
            this.number = number;
            user = number % 5 == 0 ? "pooled_keeper" : "shop";
            atStartup = number % 2 == 0;
            // Some use no prepared statements at all.
            simple = number % 10 == 9;
            settings.put("application_name", "jdbc-" + number);
            settings.put("TimeZone", List.copyOf(NOON.keySet()).get(number % 5));
            settings.put("DateStyle", List.copyOf(DAY.keySet()).get(number % 3));
            settings.put("search_path", place(0));
            settings.put("work_mem", (2049 + number) + "kB");
            settings.put("statement_timeout", (60001 + number) + "ms");
            settings.put("app.tenant", "tenant-" + number);
        }

        String place(int further) {
            return "place_" + (number + further) % 4 + ",public";
        }

        String mark() {
            return "jdbc-" + number + "-" + ++marks;
        }

        void equal(String what, Object found, Object expected) {
            check(number, what, found, expected);
        }

        void connect() throws Exception {
            URI uri = new URI(System.getenv("PGHERD_DSN"));
            String[] who = uri.getRawUserInfo().split(":", 2);
            Properties properties = new Properties();
            properties.setProperty("user", who[0]);
            properties.setProperty("password", who.length < 2 ? "" : URLDecoder.decode(who[1], StandardCharsets.UTF_8));
            properties.setProperty("prepareThreshold", "1");
            properties.setProperty("connectTimeout", "30");
            properties.setProperty("loginTimeout", "60");
            properties.setProperty("socketTimeout", "120");
            if (simple) {
                properties.setProperty("preferQueryMode", "simple");
            }
            if (number % 7 == 3) {
                // Each statement of a transaction has a savepoint of the driver's own.
                properties.setProperty("autosave", "always");
            }
            properties.setProperty("reWriteBatchedInserts", number % 4 < 2 ? "true" : "false");
            if (atStartup) {
                settings.put("TimeZone", OWN_ZONE);
                StringBuilder options = new StringBuilder();
                for (String name : List.of("work_mem", "statement_timeout", "app.tenant")) {
                    options.append(" -c ").append(name).append('=').append(settings.get(name));
                }
                properties.setProperty("options", options.toString().trim());
                properties.setProperty("ApplicationName", settings.get("application_name"));
                properties.setProperty("currentSchema", settings.get("search_path"));
                // The driver tells the server DateStyle=ISO itself.
                settings.put("DateStyle", "ISO, MDY");
                startup.putAll(settings);
            }
            String url = "jdbc:postgresql://" + uri.getHost() + ":" + uri.getPort() + uri.getPath();
            connection = DriverManager.getConnection(url, properties);
            if (!atStartup) {
                connection.setClientInfo("ApplicationName", settings.get("application_name"));
                try (Statement statement = connection.createStatement()) {
                    statement.execute("SET TIME ZONE '" + settings.get("TimeZone") + "'");
                    statement.execute("SET DateStyle TO " + settings.get("DateStyle"));
                    statement.execute("SET work_mem TO '" + settings.get("work_mem") + "'");
                    statement.execute("SET statement_timeout = '" + settings.get("statement_timeout")
                            + "'; SET SESSION app.tenant = '" + settings.get("app.tenant") + "'");
                }
                connection.setSchema("place_" + number % 4);
                settings.put("search_path", "place_" + number % 4);
                if (number % 3 > 0) {
                    ask("SELECT set_config('search_path', ?, false)", place(0));
                    settings.put("search_path", place(0));
                } else {
                    // The tables are found by their schema all the same.
                    execute("SET search_path TO \"place_" + number % 4 + "\", public");
                    settings.put("search_path", "place_" + number % 4 + ", public");
                }
            }
            if (!user.equals("shop")) {
                execute("SET ROLE " + user);
            }
        }

        void execute(String sql) throws SQLException {
            try (Statement statement = connection.createStatement()) {
                statement.execute(sql);
            }
        }

        /** The first column of the first row. */
        Object ask(String sql, Object... values) throws SQLException {
            try (PreparedStatement statement = connection.prepareStatement(sql)) {
                for (int at = 0; at < values.length; at++) {
                    statement.setObject(at + 1, values[at]);
                }
                try (ResultSet rows = statement.executeQuery()) {
                    return rows.next() ? rows.getObject(1) : null;
                }
            }
        }

        int insert(String what, String mark) throws SQLException {
            try (PreparedStatement statement = connection.prepareStatement(INSERT)) {
                statement.setInt(1, number);
                statement.setString(2, what);
                statement.setString(3, mark);
                return statement.executeUpdate();
            }
        }

        Object count(String mark) throws SQLException {
            return ask("SELECT count(*) FROM marks WHERE client = ? AND mark = ?", number, mark);
        }

        void read(String what, Map<String, String> changed) throws SQLException {
            Map<String, String> now = new HashMap<>(settings);
            now.putAll(changed);
            List<Object> expected = new ArrayList<>(List.of(mark()));
            SETTINGS.forEach(name -> expected.add(now.get(name)));
            expected.addAll(List.of(user, DAY.get(now.get("DateStyle")), NOON.get(now.get("TimeZone")),
                    now.get("search_path").split(",")[0], "note of " + now.get("app.tenant").substring("tenant-".length())));
            try (PreparedStatement statement = connection.prepareStatement(READ)) {
                statement.setString(1, (String) expected.get(0));
                try (ResultSet rows = statement.executeQuery()) {
                    equal(what + ": a row", rows.next(), true);
                    for (int at = 0; at < expected.size(); at++) {
                        String name = at >= 1 && at <= SETTINGS.size() ? SETTINGS.get(at - 1) : "column " + at;
                        equal(what + ": " + name, rows.getObject(at + 1), expected.get(at));
                    }
                    equal(what + ": more rows", rows.next(), false);
                }
            }
        }

        void reads(String what) throws SQLException {
            read(what, Map.of());
            Map<String, String> told = connection.unwrap(PGConnection.class).getParameterStatuses();
            equal(what + ": told zone", told.get("TimeZone"), settings.get("TimeZone"));
            equal(what + ": told name", told.get("application_name"), settings.get("application_name"));
        }

        void fails(String what, String sqlstate, Work work) throws Exception {
            String found = null;
            try {
                work.run();
            } catch (SQLException error) {
                found = error.getSQLState();
            }
            equal(what, found, sqlstate);
        }

        void commits(int round) throws Exception {
            String mark = mark();
            String workMem = (3073 + number + round) + "kB";
            connection.setAutoCommit(false);
            equal("inserted", insert("kept " + round, mark), 1);
            Savepoint savepoint = connection.setSavepoint("a");
            execute("SET work_mem = '99MB'");
            equal("set in a savepoint", ask("SHOW work_mem"), "99MB");
            connection.rollback(savepoint);
            fails("the same row twice", "23505", () -> insert("kept " + round, "twice"));
            connection.rollback(savepoint);
            connection.releaseSavepoint(savepoint);
            execute("SET work_mem = '" + workMem + "'");
            connection.commit();
            connection.setAutoCommit(true);
            settings.put("work_mem", workMem);
            equal("committed", count(mark), 1L);
            reads("after a commit");
        }

        void rollsBack(int round) throws Exception {
            String mark = mark();
            connection.setAutoCommit(false);
            insert("gone " + round, mark);
            execute("SET app.tenant = 'tenant-77'");
            ask("SELECT set_config('search_path', ?, false)", place(1));
            read("before a rollback", Map.of("app.tenant", "tenant-77", "search_path", place(1)));
            connection.rollback();
            connection.setAutoCommit(true);
            reads("after a rollback");
            equal("rolled back", count(mark), 0L);
        }

        void setsLocally() throws Exception {
            connection.setAutoCommit(false);
            execute("SET LOCAL TIME ZONE 'Asia/Tokyo'");
            ask("SELECT set_config('app.tenant', ?, true)", "tenant-55");
            ask("SELECT set_config('search_path', ?, true)", place(2));
            read("set locally", Map.of("app.tenant", "tenant-55", "search_path", place(2), "TimeZone", "Asia/Tokyo"));
            connection.commit();
            connection.setAutoCommit(true);
            reads("after SET LOCAL");
        }

        void isolates() throws Exception {
            connection.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
            equal("isolation", ask("SHOW transaction_isolation"), "repeatable read");
            equal("isolation of the driver", connection.getTransactionIsolation(), Connection.TRANSACTION_REPEATABLE_READ);
            connection.setTransactionIsolation(Connection.TRANSACTION_READ_COMMITTED);
            equal("isolation again", ask("SHOW transaction_isolation"), "read committed");
            connection.setReadOnly(true);
            connection.setAutoCommit(false);
            fails("written where one may only read", "25006", () -> insert("never", "never"));
            connection.rollback();
            connection.setAutoCommit(true);
            connection.setReadOnly(false);
            equal("read only", ask("SHOW transaction_read_only"), "off");
            equal("the schema", connection.getSchema(), settings.get("search_path").split(",")[0]);
        }

        void errs() throws Exception {
            fails("an error alone", "22012", () -> ask("SELECT 1 / ?::int", 0));
            connection.setAutoCommit(false);
            fails("an error", "22012", () -> ask("SELECT 1 / ?::int", 0));
            // With savepoints of its own the driver has undone the one that failed.
            fails("behind an error", number % 7 == 3 ? null : "25P02", () -> ask("SELECT 1 + ?::int", 0));
            connection.rollback();
            execute("SET LOCAL statement_timeout = '5ms'");
            fails("too slow", "57014", () -> ask("SELECT pg_sleep(?)", 5));
            connection.rollback();
            connection.setAutoCommit(true);
            reads("after errors");
        }

        void batches(int round) throws Exception {
            String mark = mark();
            try (PreparedStatement statement = connection.prepareStatement(INSERT, Statement.RETURN_GENERATED_KEYS)) {
                for (int at = 0; at < 40; at++) {
                    statement.setInt(1, number);
                    statement.setString(2, "many " + round + " " + at);
                    statement.setString(3, mark);
                    statement.addBatch();
                }
                equal("a batch", statement.executeBatch().length, 40);
                int keys = 0;
                try (ResultSet rows = statement.getGeneratedKeys()) {
                    while (rows.next()) {
                        keys++;
                    }
                }
                equal("its keys", keys, 40);
            }
            equal("all of it", count(mark), 40L);
            String half = mark();
            try (PreparedStatement statement = connection.prepareStatement(INSERT)) {
                for (int at = 0; at < 40; at++) {
                    statement.setInt(1, number);
                    statement.setString(2, "half " + round + " " + at % 30);
                    statement.setString(3, half);
                    statement.addBatch();
                }
                connection.setAutoCommit(false);
                fails("a batch that fails", "23505", statement::executeBatch);
                connection.rollback();
                connection.setAutoCommit(true);
            }
            equal("none of it", count(half), 0L);
            try (Statement statement = connection.createStatement()) {
                statement.addBatch("UPDATE marks SET mark = '" + half + "' WHERE client = " + number + " AND mark = '" + mark + "'");
                statement.addBatch("DELETE FROM marks WHERE client = " + number + " AND mark = '" + half + "'");
                equal("a batch of texts", Arrays.toString(statement.executeBatch()), "[40, 40]");
            }
        }

        void fetches() throws Exception {
            String mark = mark();
            List<Object> expected = new ArrayList<>();
            for (int at = 1; at <= 120; at++) {
                expected.add(mark + "-" + at);
            }
            connection.setAutoCommit(false);
            try (PreparedStatement one = connection.prepareStatement(MANY); PreparedStatement two = connection.prepareStatement(MANY)) {
                one.setFetchSize(25);
                one.setString(1, mark);
                two.setFetchSize(40);
                two.setString(1, "other " + mark);
                List<Object> found = new ArrayList<>();
                try (ResultSet rows = one.executeQuery(); ResultSet others = two.executeQuery()) {
                    for (int at = 1; rows.next() && others.next(); at++) {
                        found.add(rows.getString(1));
                        equal("the other portal", others.getString(1), "other " + mark + "-" + at);
                        if (at == 60) {
                            read("beside a portal", Map.of());
                        }
                    }
                }
                equal("a portal in parts", found, expected);
            }
            connection.commit();
            connection.setAutoCommit(true);
        }

        void copies(int round) throws Exception {
            String mark = mark();
            StringBuilder lines = new StringBuilder();
            for (int at = 0; at < 30; at++) {
                lines.append(number).append("\tcopied ").append(round).append(' ').append(at).append('\t').append(mark).append('\n');
            }
            var copy = connection.unwrap(PGConnection.class).getCopyAPI();
            equal("copied in", copy.copyIn("COPY marks (client, what, mark) FROM STDIN", new StringReader(lines.toString())), 30L);
            StringWriter out = new StringWriter();
            copy.copyOut("COPY (SELECT client, mark FROM marks WHERE mark = '" + mark + "') TO STDOUT", out);
            equal("copied out", out.toString(), (number + "\t" + mark + "\n").repeat(30));
        }

        void types(int round) throws Exception {
            byte[] bytes = new byte[256];
            for (int at = 0; at < bytes.length; at++) {
                bytes[at] = (byte) at;
            }
            PGobject doc = new PGobject();
            doc.setType("jsonb");
            doc.setValue("{\"n\": [1, null, \"ü\"], \"mark\": \"" + mark() + "\"}");
            OffsetDateTime seen = OffsetDateTime.of(2026, 2, 1, 23, 59, 59, 123456000, ZoneOffset.UTC).plusDays(number);
            LocalDate day = LocalDate.of(2026, 1, 1 + round);
            BigDecimal amount = new BigDecimal(number + ".12345");
            UUID token = UUID.randomUUID();
            String[] words = {"a,b", "q\"q", "ž"};
            Integer[] list = {number, round};
            String columns = "doc, list, words, seen, day, amount, photo, token, feel";
            try (PreparedStatement statement = connection.prepareStatement("INSERT INTO kinds (client, " + columns
                    + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?::mood) RETURNING " + columns)) {
                statement.setInt(1, number);
                statement.setObject(2, doc);
                statement.setArray(3, connection.createArrayOf("int4", list));
                statement.setArray(4, connection.createArrayOf("text", words));
                statement.setObject(5, seen);
                statement.setObject(6, day);
                statement.setBigDecimal(7, amount);
                // In simple mode this driver cannot send them.
                statement.setBytes(8, simple ? null : bytes);
                statement.setObject(9, token);
                statement.setString(10, round % 2 == 0 ? "calm" : "cross");
                try (ResultSet rows = statement.executeQuery()) {
                    rows.next();
                    equal("jsonb", rows.getString(1).replace(" ", ""), doc.getValue().replace(" ", ""));
                    equal("int[]", Arrays.asList((Object[]) rows.getArray(2).getArray()), Arrays.asList(list));
                    equal("text[]", Arrays.asList((Object[]) rows.getArray(3).getArray()), Arrays.asList(words));
                    equal("timestamptz", rows.getObject(4, OffsetDateTime.class).toInstant(), seen.toInstant());
                    equal("date", rows.getObject(5, LocalDate.class), day);
                    equal("numeric", rows.getBigDecimal(6), amount);
                    equal("bytea", Arrays.equals(rows.getBytes(7), simple ? null : bytes), true);
                    equal("uuid", rows.getObject(8), token);
                    equal("an enum", rows.getString(9), round % 2 == 0 ? "calm" : "cross");
                }
            }
            int columnsFound = 0;
            try (ResultSet rows = connection.getMetaData().getColumns(null, "public", "kinds", "%")) {
                while (rows.next()) {
                    columnsFound++;
                }
            }
            equal("columns in the catalogue", columnsFound, 11);
        }

        void resets() throws Exception {
            String before = settings.get("work_mem");
            execute("RESET work_mem");
            settings.put("work_mem", startup.getOrDefault("work_mem", "4MB"));
            reads("after RESET");
            execute("SET SESSION work_mem TO '" + before + "'");
            settings.put("work_mem", before);
        }

        void work() throws Exception {
            for (int round = 0; round < ROUNDS; round++) {
                reads("at first");
                if (BREAKS && number == 0) {
                    execute("SET app.tenant = 'tenant-1'");
                }
                commits(round);
                rollsBack(round);
                setsLocally();
                isolates();
                errs();
                batches(round);
                fetches();
                copies(round);
                types(round);
                resets();
                reads("at last");
                String name = SETTINGS.get(number % SETTINGS.size());
                equal("shown " + name, ask("SHOW " + name), settings.get(name));
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        // All are connected before any works.
        CyclicBarrier together = new CyclicBarrier(CLIENTS);
        List<Thread> threads = new ArrayList<>();
        for (int number = 0; number < CLIENTS; number++) {
            Client client = new Client(number);
            Thread thread = new Thread(() -> {
                try {
                    client.connect();
                    together.await(90, TimeUnit.SECONDS);
                    client.work();
                    client.connection.close();
                } catch (Throwable error) {
                    together.reset();
                    broke(client.number, error);
                }
            });
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) {
            thread.join();
        }
        failures.stream().limit(FAILURES_SHOWN_MAX).forEach(failure -> System.out.println("FAILED " + failure));
        System.out.println("jdbc: " + CLIENTS + " clients, " + checks + " checks, " + failures.size() + " failed");
        System.exit(failures.isEmpty() && checks > 0 ? 0 : 1);
    }
}
