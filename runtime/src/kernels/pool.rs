//! A closure -> the same closure run once on each of a few threads that stay alive between calls.
#![allow(unsafe_code)]

use std::any::Any;
use std::hint;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a thread that waits keeps its core before it sleeps: longer than the pause between two kernels of one
/// inference and than threads differ in one, far shorter than that between two inferences. A thread that slept is
/// often woken on the core of the one that woke it, and both then take turns on one core.
const SPIN: Duration = Duration::from_micros(100);

/// Worker threads 1, 2, ...; worker 0 is whoever calls [`Pool::run`].
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    running: Mutex<()>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Goes up by one with each job; what the workers watch.
    epoch: AtomicUsize,
    /// Workers that have not finished the current job.
    unfinished: AtomicUsize,
    /// What to do in this epoch; `None` in the last one.
    job: Mutex<Option<Job>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone)]
struct Job {
    work: &'static (dyn Fn(usize) + Sync),
    caller: Thread,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(threads: usize) -> io::Result<Pool> {
        let mut pool =
            Pool { shared: Arc::default(), workers: Vec::new(), running: Mutex::new(()) };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let builder = thread::Builder::new().name(format!("kernel-{worker}"));
            pool.workers.push(builder.spawn(move || serve(&shared, worker))?);
        }
        Ok(pool)
    }

    pub(super) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `work(worker)` once for each worker, and returns when all calls have. Where the pool is at
    /// work already, the calling thread makes all of the calls itself, in order.
    pub(super) fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        let free = match self.running.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        };
        if self.workers.is_empty() || free.is_none() {
            (0..self.threads()).for_each(work);
            return;
        }
        self.start(work);
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        wait_until(|| self.shared.unfinished.load(Ordering::Acquire) == 0);
        *lock(&self.shared.job) = None;
        let theirs = lock(&self.shared.panic).take();
        drop(free);
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    fn start(&self, work: &(dyn Fn(usize) + Sync)) {
        // SAFETY: only the lifetime changes. `run` keeps the borrow alive until every worker has counted
        // itself off, which each does after its last use of `work`, panic or not.
        let work = unsafe {
            mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(work)
        };
        *lock(&self.shared.job) = Some(Job { work, caller: thread::current() });
        self.shared.unfinished.store(self.workers.len(), Ordering::Relaxed);
        self.next_epoch();
    }

    fn next_epoch(&self) {
        self.shared.epoch.fetch_add(1, Ordering::Release);
        self.workers.iter().for_each(|worker| worker.thread().unpark());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        *lock(&self.shared.job) = None;
        self.next_epoch();
        for worker in self.workers.drain(..) {
            // A worker catches the panics of its jobs, so there is none to report.
            let _ = worker.join();
        }
    }
}

fn serve(shared: &Shared, worker: usize) {
    let mut seen = 0;
    loop {
        wait_until(|| shared.epoch.load(Ordering::Acquire) != seen);
        seen += 1;
        let Some(Job { work, caller }) = lock(&shared.job).clone() else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(worker))) {
            lock(&shared.panic).get_or_insert(panic);
        }
        if shared.unfinished.fetch_sub(1, Ordering::AcqRel) == 1 {
            caller.unpark();
        }
    }
}

/// Returns once `done`; whoever makes it so unparks this thread afterwards.
fn wait_until(done: impl Fn() -> bool) {
    let start = Instant::now();
    while start.elapsed() < SPIN {
        for _ in 0..32 {
            if done() {
                return;
            }
            hint::spin_loop();
        }
    }
    while !done() {
        thread::park();
    }
}

/// No code panics while it holds one of these locks, so a poisoned one holds a good value.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
