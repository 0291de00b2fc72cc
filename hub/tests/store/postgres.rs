//! A PostgreSQL server of the tests' own, on a socket in a folder of its own and a port of this machine, with a data base for each test.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

#[path = "../../../tests/src/skip.rs"]
#[expect(unreachable_pub, reason = "it is public where it comes from")]
pub(crate) mod skip;

/// Makes a server and stops it when its input ends, which the kernel sees to when the tests are gone in whatever way. The
/// input is kept from the server itself.
const SCRIPT: &str = r#"set -eu
PATH="$1:$PATH"
dir=$(mktemp -d /tmp/active-monitor-postgres.XXXXXX)
trap 'rm -rf "$dir"' EXIT
trap '' INT
exec 3>&1 >"$dir/log" 2>&1 4<&0 </dev/null
initdb --pgdata "$dir/data" --username hub --auth trust --no-sync
cd "$dir"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -subj /CN=ca -days 2
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj /CN=server
echo subjectAltName=DNS:localhost >names
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile names
postgres -D "$dir/data" -k "$dir" -c listen_addresses=127.0.0.1 -c port="$2" -c max_connections=300 \
  -c ssl=on -c ssl_cert_file="$dir/server.crt" -c ssl_key_file="$dir/server.key" 3>&- 4<&- &
echo "$dir" >&3
cat <&4 >/dev/null
kill -QUIT $!
wait || true
"#;

struct Server {
    /// Where its socket is, and its authority's certificate.
    folder: PathBuf,
    port: u16,
    /// Its input ends with the tests.
    _script: Child,
}

/// An empty data base.
pub(crate) struct Database {
    folder: &'static Path,
    port: u16,
    name: String,
}

impl Database {
    /// A new one; none where no server's programs are installed, which is said once for each test.
    pub(crate) async fn create(test: &str) -> Option<Database> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let Some(server) = server() else {
            skip::report(test, "no PostgreSQL server is installed (Debian: apt-get install postgresql)");
            return None;
        };
        let database = Database {
            folder: &server.folder,
            port: server.port,
            name: format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed)),
        };
        let mut admin = database.connect_to("postgres").await;
        let create = AssertSqlSafe(format!("CREATE DATABASE {}", database.name));
        sqlx::query(create).execute(&mut admin).await.unwrap();
        admin.close().await.unwrap();
        Some(database)
    }

    fn options_of(&self, name: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass().socket(self.folder).port(self.port).username("hub").database(name)
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        self.options_of(&self.name)
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://hub@localhost:{}/{}?host={}", self.port, self.name, self.folder.display())
    }

    /// By TLS over the network, with `settings` in the URL.
    pub(crate) fn url_of_tls(&self, host: &str, settings: &str) -> String {
        format!("postgres://hub@{host}:{}/{}?{settings}", self.port, self.name)
    }

    /// The certificate of the authority that signed the server's.
    pub(crate) fn authority(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        self.connect_to(&self.name).await
    }

    /// Waits for a server that is just starting.
    async fn connect_to(&self, name: &str) -> PgConnection {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.options_of(name).connect().await {
                Ok(connection) => return connection,
                Err(error) if Instant::now() > deadline => panic!("the server does not answer: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Cuts every connection to the data base, as a server does that is stopped; but none that waits for the claim.
    pub(crate) async fn cut(&self) {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                   AND pid <> pg_backend_pid() AND wait_event IS DISTINCT FROM 'advisory'";
        sqlx::query(cut).execute(&mut self.connect().await).await.unwrap();
    }

    /// Waits until somebody has the claim, or waits for it, who is not `before`; returns the server's number of it.
    pub(crate) async fn claimant(&self, granted: bool, before: Option<i32>) -> i32 {
        let mut connection = self.connect().await;
        let claims = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted = $1 AND pid IS DISTINCT FROM $2 \
                      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let claim = sqlx::query_scalar(claims).bind(granted).bind(before);
            match claim.fetch_optional(&mut connection).await.unwrap() {
                Some(claimant) => return claimant,
                None => assert!(Instant::now() < deadline, "no claim that is granted={granted}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(start).as_ref()
}

fn start() -> Option<Server> {
    let bin = programs()?;
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    // The server refuses to run as root.
    let mut command = if is_root {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", "sh"]);
        command
    } else {
        Command::new("sh")
    };
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut child = command
        .args(["-c", SCRIPT, "sh"])
        .arg(bin)
        .arg(port.to_string())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "initdb failed");
    Some(Server { folder: PathBuf::from(line.trim()), port, _script: child })
}

/// The folder with `initdb` and `postgres`: that of Debian's newest version, or one on the path.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions.map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let has = |bin: &PathBuf| ["initdb", "postgres"].iter().all(|program| bin.join(program).is_file());
    debian.filter(has).max().or_else(|| path.into_iter().find(has))
}
