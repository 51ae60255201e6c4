//! A PostgreSQL of one test: made in a temporary folder, reached through a socket there, ended with the test.

use ledger::Database;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A running server.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    programs: PathBuf,
    /// PostgreSQL does not run as root.
    user: Option<(u32, u32)>,
    server: Option<Child>,
    /// What the server is told beside the usual.
    options: &'static str,
    made: AtomicU32,
}

impl Cluster {
    /// Starts one that would not survive a loss of power, which no test brings about; none if the machine has no
    /// PostgreSQL, unless it must.
    pub(crate) fn start() -> Option<Cluster> {
        Cluster::start_with("-c fsync=off -c shared_buffers=64MB")
    }

    /// Starts one with these options.
    pub(crate) fn start_with(options: &'static str) -> Option<Cluster> {
        let Some(programs) = programs() else {
            assert!(std::env::var_os("LOCKSTEP_REQUIRE_POSTGRES").is_none(), "there is no PostgreSQL: install it");
            eprintln!("there is no PostgreSQL on this machine: not tested with it");
            return None;
        };
        // Sockets have short names.
        let folder = tempfile::Builder::new().prefix("lspg").tempdir_in("/tmp").unwrap();
        let user = unprivileged();
        if let Some((user, group)) = user {
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let mut cluster = Cluster { folder, programs, user, server: None, options, made: AtomicU32::new(0) };
        let data = cluster.folder.path().join("data");
        let made = cluster
            .command("initdb")
            .args(["--no-sync", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        cluster.serve();
        Some(cluster)
    }

    /// Starts the server on what is in the folder.
    pub(crate) fn serve(&mut self) {
        let data = self.folder.path().join("data");
        // The shell ends the server when this process is gone, however it went.
        let script = "\"$0\" -D \"$1\" -k \"$2\" -c listen_addresses= -c max_connections=200 $3 >\"$2/log\" 2>&1 & \
                      server=$!; read line; kill -INT $server; wait $server";
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(script)
            .arg(self.programs.join("postgres"))
            .arg(data)
            .arg(self.folder.path())
            .arg(self.options);
        self.as_user(&mut command);
        self.server = Some(command.stdin(Stdio::piped()).spawn().unwrap());
        let begun = Instant::now();
        while !self.command("psql").args(["-q", "-c", "SELECT 1", "postgres"]).output().unwrap().status.success() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(60), "PostgreSQL does not start: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the server, cutting every connection.
    pub(crate) fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            drop(server.stdin.take());
            server.wait().unwrap();
        }
    }

    /// A new database in it.
    pub(crate) fn database(&self) -> Database {
        self.database_and_url().0
    }

    /// A new database in it, and its address.
    pub(crate) fn database_and_url(&self) -> (Database, String) {
        let name = format!("books{}", self.made.fetch_add(1, Ordering::SeqCst));
        let made = self.command("psql").args(["-q", "-c", &format!("CREATE DATABASE {name}"), "postgres"]).output();
        let made = made.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let url = self.url(&name);
        (url.parse().unwrap(), url)
    }

    /// Hundredths of a second of processor time that the server took so far, all its processes together.
    pub(crate) fn ticks(&self) -> u64 {
        let file = std::fs::read_to_string(self.folder.path().join("data/postmaster.pid")).unwrap();
        let server = file.lines().next().unwrap().to_owned();
        let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
        let sum = stats.map(|stat| {
            // Behind the name: state, parent, …; own and waited-for children's time from the 12th on.
            let words: Vec<&str> = stat.rsplit(')').next().unwrap().trim().split(' ').collect();
            let time = |index: usize| words[index].parse::<u64>().unwrap();
            match (stat.starts_with(&format!("{server} ")), words[1] == server) {
                (true, _) => (11..15).map(time).sum(),
                (_, true) => (11..13).map(time).sum(),
                _ => 0,
            }
        });
        sum.sum()
    }

    fn url(&self, name: &str) -> String {
        format!("postgres://postgres@localhost/{name}?host={}", self.folder.path().display())
    }

    /// Runs statements in a database, as somebody who goes behind the ledger's back.
    pub(crate) fn tamper(&self, database: &Database, sql: &str) {
        let Database::Postgres(url) = database else { return };
        let done = self.command("psql").args(["-q", "-v", "ON_ERROR_STOP=1", "-c", sql, url]).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.env("PGHOST", self.folder.path()).env("PGUSER", "postgres").current_dir("/");
        self.as_user(&mut command);
        command
    }

    fn as_user(&self, command: &mut Command) {
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Where PostgreSQL's programs are.
fn programs() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|folder| folder.filter_map(Result::ok).map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    places.sort();
    places.reverse();
    places.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let has = |place: &Path| ["initdb", "postgres", "psql"].iter().all(|program| place.join(program).exists());
    places.into_iter().find(|place| has(place))
}

/// Somebody else, where this runs as root.
fn unprivileged() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let own = std::fs::metadata("/proc/self").unwrap().uid();
    if own != 0 {
        return None;
    }
    let table = std::fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = table.lines().find(|line| line.starts_with(&format!("{name}:")))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(find("postgres").or_else(|| find("nobody")).unwrap())
}
