//! A PostgreSQL server for a test or a part of the bench, with its settings as Debian ships them, but for the memory that a
//! server of this size would be given. As root it runs as `postgres`, since the server refuses to be root.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// Makes a server and ends it when its input ends, which the kernel sees to when its owner is gone in whatever way.
const SCRIPT: &str = r#"set -eu
PATH="$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1):$PATH"
dir=$(mktemp -d /tmp/active-monitor-bench.XXXXXX)
trap 'rm -rf "$dir"' EXIT
trap '' INT
exec 3>&1 >"$dir/log" 2>&1 4<&0 </dev/null
initdb --pgdata "$dir/data" --username hub --auth trust --no-sync
postgres -D "$dir/data" -k "$dir" -c listen_addresses= -c shared_buffers=512MB -c max_wal_size=8GB 3>&- 4<&- &
until createdb -h "$dir" -U hub bench; do sleep 0.1; done
echo "$dir" >&3
exec 3>&-
cat <&4 >/dev/null
kill -QUIT $!
wait || true
"#;

/// A server with one empty data base. Dropping it ends it.
pub struct Postgres {
    /// Where its socket is.
    folder: PathBuf,
    _script: Child,
    /// Its input ends with its owner.
    _leash: ChildStdin,
}

impl Postgres {
    /// Starts it.
    ///
    /// # Errors
    /// When no server is installed, or it does not start.
    pub async fn start() -> anyhow::Result<Postgres> {
        let mut command = Command::new("sh");
        if rustix::process::geteuid().is_root() {
            command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "sh"]);
        }
        command.args(["-c", SCRIPT]).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = command.spawn()?;
        let leash = script.stdin.take().context("no input")?;
        let mut line = String::new();
        BufReader::new(script.stdout.take().context("no output")?).read_line(&mut line).await?;
        ensure!(!line.is_empty(), "no PostgreSQL server starts (Debian: apt-get install postgresql)");
        Ok(Postgres { folder: PathBuf::from(line.trim()), _script: script, _leash: leash })
    }

    /// As the hub and psql take it.
    pub fn url(&self) -> String {
        format!("postgres://hub@localhost/bench?host={}", self.folder.display())
    }
}
