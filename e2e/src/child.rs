//! Programs that a test starts beside itself. They die with it, even when it crashes.

use std::{
    fs::File,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// What is asked to end and has not after this time is killed.
const END: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// A program that runs until this is dropped, or the test program ends.
#[derive(Debug)]
pub struct Process {
    child: Child,
    end: &'static str,
}

impl Process {
    /// Starts a program with all output in `log`. `end` is the signal that ends it; `command` adds arguments, and takes rights
    /// away with those of setpriv.
    pub fn start(
        end: &'static str,
        log: &Path,
        command: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<Self> {
        let mut setpriv = Command::new("setpriv");
        command(setpriv.args(["--pdeathsig", end]));
        Ok(Self { child: launch(setpriv, log.to_owned())?, end })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal by its name, as in `STOP`.
    pub fn signal(&self, name: &str) -> Result<()> {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).output()?;
        if !sent.status.success() {
            bail!("{}", String::from_utf8_lossy(&sent.stderr).trim());
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_alive() {
            let _ = self.signal(self.end);
            // One that was stopped takes its end only when it goes on.
            let _ = self.signal("CONT");
        }
        let asked = Instant::now();
        while self.is_alive() && asked.elapsed() < END {
            thread::park_timeout(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `setpriv` sets the parent-death signal, which only unsafe code could set from here.
pub(crate) fn dying_with_parent(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// Starts `command` from a thread that lives as long as the program, since the signal follows the thread. Its process id is that
/// of what setpriv starts.
pub(crate) fn launch(mut command: Command, log: PathBuf) -> Result<Child> {
    let (started, outcome) = mpsc::channel();
    thread::spawn(move || {
        let spawned = File::create(&log).and_then(|file| {
            let errors = file.try_clone()?;
            command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn()
        });
        let lives = spawned.is_ok();
        let _ = started.send(spawned);
        if lives {
            loop {
                thread::park();
            }
        }
    });
    outcome.recv()?.context("setpriv (package util-linux) could not start it")
}

/// Ports that are free now, below those that the kernel gives to clients: none of them can take one before it is used.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    [(); N].map(|()| {
        loop {
            let next =
                std::process::id().wrapping_mul(97).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
            let port = 20_000 + (next % 12_000) as u16;
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}

/// What a script of the checkout prints as its last line: the path of a tool, which it installs first where it is missing.
pub fn path_from(script: &str, arguments: &[&str]) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let output = Command::new(&script)
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{} cannot be run", script.display()))?;
    if !output.status.success() {
        bail!("{} failed: see its output above", script.display());
    }
    let text = String::from_utf8(output.stdout)?;
    Ok(PathBuf::from(text.lines().last().context("no path was printed")?.trim()))
}
