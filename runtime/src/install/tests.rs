//! Updates on a disk that fails: at every operation in turn, in every way, and a thousand times at random.

use std::collections::BTreeSet;
use std::io;

use super::*;
use crate::bundle::tests::{small_claiming, small_with_golden};

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The power goes: what was not synced may or may not be there, files that were not synced are cut.
    PowerCut,
    /// The process is killed in the middle; what it did so far stays.
    Kill,
    /// The disk is full: half of it is written, and the process goes on.
    DiskFull,
    /// The operation fails as a whole, and the process goes on.
    Refused,
}

const FAULTS: [Fault; 4] = [Fault::PowerCut, Fault::Kill, Fault::DiskFull, Fault::Refused];

/// A change of names that a power cut may undo.
enum Undo {
    Create(PathBuf),
    Rename { from: PathBuf, to: PathBuf, overwritten: Option<Vec<u8>> },
    Remove { path: PathBuf, content: Vec<u8> },
}

impl Undo {
    fn names(&self) -> Vec<&PathBuf> {
        match self {
            Undo::Create(path) | Undo::Remove { path, .. } => vec![path],
            Undo::Rename { from, to, .. } => vec![from, to],
        }
    }
}

/// The disk of this machine, of which operation number `at` fails. Syncing is only noted down: the
/// power of the machine that runs the test stays on.
struct FailingDisk {
    at: usize,
    fault: Fault,
    done: usize,
    dead: bool,
    unsynced: BTreeSet<PathBuf>,
    pending: Vec<Undo>,
}

impl FailingDisk {
    fn new(at: usize, fault: Fault) -> FailingDisk {
        FailingDisk {
            at,
            fault,
            done: 0,
            dead: false,
            unsynced: BTreeSet::new(),
            pending: Vec::new(),
        }
    }

    /// One that never fails; it counts.
    fn sound() -> FailingDisk {
        FailingDisk::new(usize::MAX, Fault::Refused)
    }

    fn failed(&self) -> bool {
        self.done > self.at
    }

    /// Whether the next operation is the one that fails, and how it says so.
    fn step(&mut self) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the process is gone"));
        }
        self.done += 1;
        if self.done != self.at + 1 {
            return Ok(());
        }
        self.dead = matches!(self.fault, Fault::PowerCut | Fault::Kill);
        let kind = if self.fault == Fault::DiskFull {
            io::ErrorKind::StorageFull
        } else {
            io::ErrorKind::Other
        };
        Err(io::Error::new(kind, "injected"))
    }

    /// What a power cut leaves: of the changes of names since the last sync any, of files that were not
    /// synced any part, or zeros.
    fn lose(&mut self, chance: &mut Chance) {
        if self.fault != Fault::PowerCut || !self.dead {
            return;
        }
        // A change that stays holds on to the earlier ones of the same names; others are independent,
        // as the order of names on a disk is nobody's promise.
        let mut held: BTreeSet<PathBuf> = BTreeSet::new();
        for undo in std::mem::take(&mut self.pending).into_iter().rev() {
            let names = undo.names();
            if names.iter().any(|name| held.contains(*name)) || chance.below(2) == 0 {
                held.extend(names.into_iter().cloned());
                continue;
            }
            match undo {
                Undo::Create(path) => drop(std::fs::remove_file(path)),
                Undo::Rename { from, to, overwritten } => {
                    std::fs::rename(&to, &from).unwrap();
                    if self.unsynced.remove(&to) {
                        self.unsynced.insert(from);
                    }
                    overwritten
                        .into_iter()
                        .for_each(|content| std::fs::write(&to, content).unwrap());
                }
                Undo::Remove { path, content } => std::fs::write(path, content).unwrap(),
            }
        }
        for path in std::mem::take(&mut self.unsynced) {
            if let Ok(mut content) = std::fs::read(&path) {
                let length = chance.below(content.len() + 1);
                if chance.below(2) == 0 {
                    content.truncate(length)
                } else {
                    content[length..].fill(0)
                }
                std::fs::write(&path, content).unwrap();
            }
        }
    }
}

impl Files for FailingDisk {
    fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        Disk.create_folder(path)
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let alive = !self.dead;
        let step = self.step();
        if step.is_err() && (!alive || self.fault == Fault::Refused) {
            return step;
        }
        if !path.exists() {
            self.pending.push(Undo::Create(path.to_owned()));
        }
        self.unsynced.insert(path.to_owned());
        let part = if step.is_ok() { bytes } else { &bytes[..bytes.len() / 2] };
        Disk.write(path, part)?;
        step
    }

    fn sync(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.unsynced.remove(path);
        Ok(())
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        let overwritten = std::fs::read(to).ok();
        Disk.rename(from, to)?;
        if self.unsynced.remove(from) {
            self.unsynced.insert(to.to_owned());
        }
        self.pending.push(Undo::Rename { from: from.to_owned(), to: to.to_owned(), overwritten });
        Ok(())
    }

    fn sync_folder(&mut self, _: &Path) -> io::Result<()> {
        self.step()?;
        self.pending.clear();
        Ok(())
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        let content = std::fs::read(path)?;
        self.unsynced.remove(path);
        Disk.remove(path)?;
        self.pending.push(Undo::Remove { path: path.to_owned(), content });
        Ok(())
    }
}

/// Chances that are the same every time (Knuth, MMIX).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// A folder with five bundles to install, and one for slots.
struct Bench {
    folder: tempfile::TempDir,
    digests: Vec<Digest>,
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let digest = |seed: u16| {
            let image = small_with_golden(seed);
            std::fs::write(folder.path().join(format!("{seed}.dram")), &image).unwrap();
            Bundle::from_image(&image).unwrap().digest()
        };
        let digests = (0..5).map(digest).collect();
        Bench { folder, digests }
    }

    fn slots(&self) -> PathBuf {
        self.folder.path().join("slots")
    }

    fn new_bundle(&self, index: usize) -> PathBuf {
        self.folder.path().join(format!("{index}.dram"))
    }

    fn install_on(&self, files: &mut FailingDisk, index: usize) -> Result<Verification> {
        let slots = self.slots();
        Slots { folder: &slots, files }.install(&self.new_bundle(index), &Options::default())
    }

    fn install(&self, index: usize) {
        self.install_on(&mut FailingDisk::sound(), index).unwrap();
    }

    fn open(&self) -> Result<Started> {
        open_on(&mut FailingDisk::sound(), &self.slots())
    }

    fn confirm(&self) {
        let slots = self.slots();
        Slots { folder: &slots, files: &mut FailingDisk::sound() }.confirm().unwrap();
    }

    fn rollback(&self) -> Result<Digest> {
        let slots = self.slots();
        Slots { folder: &slots, files: &mut FailingDisk::sound() }.rollback(&Options::default())
    }

    fn status(&self) -> Status {
        status(&self.slots()).unwrap().unwrap()
    }

    /// Names of all files in the slot folder but the lock, shortened.
    fn files(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.slots()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "lock").collect()
    }
}

fn open_on(files: &mut FailingDisk, slots: &Path) -> Result<Started> {
    Slots { folder: slots, files }.open_current(&Options::default())
}

#[test]
fn an_update_is_a_trial_until_it_is_confirmed() {
    let bench = Bench::new();
    let [a, b, c] = [0, 1, 2].map(|index| bench.digests[index]);
    assert!(matches!(bench.open(), Err(Error::Missing { .. })), "nothing installed");
    bench.install(0);
    assert_eq!(bench.status(), Status { running: a, previous: None, stage: Stage::Installed });
    assert_eq!(bench.open().unwrap().start, Start::Trial);
    bench.confirm();
    assert_eq!(bench.open().unwrap().start, Start::Confirmed);

    bench.install(1);
    assert_eq!(bench.status(), Status { running: b, previous: Some(a), stage: Stage::Installed });
    let started = bench.open().unwrap();
    assert_eq!((started.session.digest(), started.start), (b, Start::Trial));
    bench.confirm();
    bench.install(2);
    assert_eq!(bench.status(), Status { running: c, previous: Some(b), stage: Stage::Installed });
    let expected = [format!("{b}.dram"), format!("{c}.dram"), "current".to_owned()];
    assert_eq!(bench.files(), BTreeSet::from(expected), "the one before the previous is gone");
}

#[test]
fn a_first_start_that_crashes_returns_to_the_previous_bundle() {
    let bench = Bench::new();
    bench.install(0);
    bench.open().unwrap();
    bench.confirm();
    bench.install(1);
    // The process ends before it confirms.
    assert_eq!(bench.open().unwrap().start, Start::Trial);
    let started = bench.open().unwrap();
    assert_eq!(started.session.digest(), bench.digests[0]);
    assert!(matches!(started.start, Start::Returned { from, .. } if from == bench.digests[1]));
    assert_eq!(bench.open().unwrap().start, Start::Confirmed, "the return is told once");
    assert!(!bench.files().contains(&format!("{}.dram", bench.digests[1])));
}

#[test]
fn an_only_bundle_is_tried_again() {
    let bench = Bench::new();
    bench.install(0);
    for _ in 0..3 {
        assert_eq!(bench.open().unwrap().start, Start::Trial);
    }
}

#[test]
fn a_bundle_that_breaks_in_its_slot_gives_way() {
    let bench = Bench::new();
    for (what, confirmed) in [("on trial", false), ("confirmed", true)] {
        bench.install(0);
        bench.open().unwrap();
        bench.confirm();
        bench.install(1);
        if confirmed {
            bench.open().unwrap();
            bench.confirm();
        }
        let path = bench.slots().join(format!("{}.dram", bench.digests[1]));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let started = bench.open().unwrap();
        assert_eq!(started.session.digest(), bench.digests[0], "{what}");
        let Start::Returned { why, .. } = started.start else { panic!("{what}") };
        assert!(why.contains("digest"), "{why}");
    }
}

#[test]
fn a_bundle_under_another_ones_name_is_refused() {
    let bench = Bench::new();
    bench.install(0);
    bench.open().unwrap();
    bench.confirm();
    let slot = bench.slots().join(format!("{}.dram", bench.digests[0]));
    std::fs::copy(bench.new_bundle(1), slot).unwrap();
    assert!(matches!(bench.open(), Err(Error::Bundle { .. })));
}

#[test]
fn what_fails_its_self_test_never_reaches_the_slots() {
    let bench = Bench::new();
    bench.install(0);
    let before = (bench.status(), bench.files());
    let bad = bench.new_bundle(9);
    let mut altered = small_with_golden(3);
    altered[500] ^= 1;
    for image in [small_claiming(3, &[0.0; 3]), altered, b"dram".to_vec(), Vec::new()] {
        std::fs::write(&bad, image).unwrap();
        assert!(bench.install_on(&mut FailingDisk::sound(), 9).is_err());
        assert_eq!((bench.status(), bench.files()), before);
    }
}

#[test]
fn rollback_goes_back_and_forth_between_bundles_that_worked() {
    let bench = Bench::new();
    let [a, b] = [0, 1].map(|index| bench.digests[index]);
    bench.install(0);
    assert!(matches!(bench.rollback(), Err(Error::Missing { .. })), "nothing to go back to");
    bench.open().unwrap();
    bench.confirm();
    bench.install(1);
    bench.open().unwrap();
    bench.confirm();
    assert_eq!(bench.rollback().unwrap(), a);
    assert_eq!(bench.open().unwrap().session.digest(), a);
    assert_eq!(bench.rollback().unwrap(), b);
    // What never worked is not gone back to.
    bench.install(2);
    assert_eq!(bench.rollback().unwrap(), b);
    assert!(bench.rollback().is_err());
}

#[test]
fn an_update_over_one_on_trial_keeps_the_one_that_worked() {
    let bench = Bench::new();
    let [a, c] = [0, 2].map(|index| bench.digests[index]);
    bench.install(0);
    bench.open().unwrap();
    bench.confirm();
    bench.install(1);
    bench.install(2);
    assert_eq!(bench.status(), Status { running: c, previous: Some(a), stage: Stage::Installed });
    bench.install(0);
    assert_eq!(bench.status(), Status { running: a, previous: None, stage: Stage::Confirmed });
    bench.install(0);
    assert_eq!(bench.status(), Status { running: a, previous: None, stage: Stage::Confirmed });
}

/// Brings a fresh bench into the state that the name says.
fn prepared(scenario: &str) -> Bench {
    let bench = Bench::new();
    let confirmed = |index: usize| {
        bench.install(index);
        bench.open().unwrap();
        bench.confirm();
    };
    match scenario {
        "nothing" => {}
        "first on trial" => bench.install(0),
        "confirmed" => confirmed(0),
        "with a previous one" => [0, 1].into_iter().for_each(confirmed),
        "on trial" => {
            confirmed(0);
            bench.install(1);
        }
        "tried" => {
            confirmed(0);
            bench.install(1);
            bench.open().unwrap();
        }
        other => unreachable!("no scenario `{other}`"),
    }
    bench
}

const SCENARIOS: [&str; 6] =
    ["nothing", "first on trial", "confirmed", "with a previous one", "on trial", "tried"];

/// Opens, on a sound disk, what the folder holds now, and checks that it is one of `allowed`.
fn opens_one_of(bench: &Bench, allowed: &[Option<Digest>], place: &str) {
    match bench.open() {
        Ok(started) => {
            assert!(
                allowed.contains(&Some(started.session.digest())),
                "{place}: {:?}",
                started.start
            );
            self_test(&started.session).unwrap_or_else(|error| panic!("{place}: {error}"));
        }
        Err(Error::Missing { .. }) => assert!(allowed.contains(&None), "{place}: nothing is left"),
        Err(error) => panic!("{place}: {error}"),
    }
}

fn known(bench: &Bench) -> Vec<Option<Digest>> {
    match status(&bench.slots()).unwrap() {
        None => vec![None],
        Some(status) if status.previous.is_none() => vec![Some(status.running)],
        Some(status) => vec![Some(status.running), status.previous],
    }
}

#[test]
fn a_fault_at_any_operation_of_an_install_leaves_a_good_bundle() {
    let mut chance = Chance(1);
    let mut cases = 0;
    for scenario in SCENARIOS {
        for fault in FAULTS {
            // A power cut has many outcomes; each operation sees several.
            for (at, _) in (0..).flat_map(|at| {
                (0..if fault == Fault::PowerCut { 6 } else { 1 }).map(move |n| (at, n))
            }) {
                let bench = prepared(scenario);
                let mut allowed = known(&bench);
                allowed.push(Some(bench.digests[2]));
                let mut disk = FailingDisk::new(at, fault);
                let installed = bench.install_on(&mut disk, 2);
                let place = format!("{scenario}, {fault:?} at operation {at}");
                if !disk.failed() {
                    installed.unwrap_or_else(|error| panic!("{place}: {error}"));
                    break;
                }
                disk.lose(&mut chance);
                opens_one_of(&bench, &allowed, &place);
                // The next update finds nothing in its way.
                bench.install(3);
                opens_one_of(&bench, &[Some(bench.digests[3])], &place);
                cases += 1;
            }
        }
    }
    // The folder made, two files written, synced and renamed, three more syncs: ten operations; a
    // scenario without a switch has six.
    assert!(cases > SCENARIOS.len() * (3 + 6) * 8, "{cases}");
}

#[test]
fn a_refused_operation_and_then_a_power_cut_in_the_next_install_leave_a_good_bundle() {
    let mut chance = Chance(5);
    for first in 0.. {
        let mut second = 0;
        loop {
            let bench = prepared("with a previous one");
            let mut allowed = known(&bench);
            allowed.extend([2, 3].map(|index| Some(bench.digests[index])));
            let mut disk = FailingDisk::new(first, Fault::Refused);
            let _ = bench.install_on(&mut disk, 2);
            if !disk.failed() {
                return;
            }
            // The same disk, with what it still owes: a switch that was never synced may be undone.
            disk.at = disk.done + second;
            disk.fault = Fault::PowerCut;
            let _ = bench.install_on(&mut disk, 3);
            if !disk.failed() {
                break;
            }
            disk.lose(&mut chance);
            opens_one_of(&bench, &allowed, &format!("operation {first}, then {second}"));
            second += 1;
        }
    }
}

#[test]
fn a_fault_at_any_operation_of_a_start_or_a_rollback_leaves_a_good_bundle() {
    let mut chance = Chance(2);
    for scenario in SCENARIOS.into_iter().skip(1) {
        for fault in FAULTS {
            for rolls_back in [false, true] {
                for at in 0.. {
                    let bench = prepared(scenario);
                    let allowed = known(&bench);
                    let mut disk = FailingDisk::new(at, fault);
                    let slots = bench.slots();
                    if rolls_back {
                        let _ = Slots { folder: &slots, files: &mut disk }
                            .rollback(&Options::default());
                    } else if let Ok(started) = open_on(&mut disk, &slots) {
                        assert!(allowed.contains(&Some(started.session.digest())));
                        let _ = Slots { folder: &slots, files: &mut disk }.confirm();
                    }
                    if !disk.failed() {
                        break;
                    }
                    disk.lose(&mut chance);
                    opens_one_of(
                        &bench,
                        &allowed,
                        &format!("{scenario}, {fault:?} at operation {at}"),
                    );
                }
            }
        }
    }
}

/// Each install is tried with a fault at its first operation, at its second, and so on until it is done.
#[test]
fn a_thousand_updates_on_a_disk_that_fails_at_every_operation_never_lose_the_last_good_bundle() {
    let bench = Bench::new();
    let mut chance = Chance(3);
    let (mut faults, mut installed) = (0, 0);
    while installed < 1000 {
        let index = chance.below(5);
        for at in 0.. {
            let mut allowed = known(&bench);
            allowed.push(Some(bench.digests[index]));
            let fault = FAULTS[chance.below(4)];
            let mut disk = FailingDisk::new(at, fault);
            let done = bench.install_on(&mut disk, index);
            let place = format!("install {installed}, {fault:?} at operation {at}");
            if !disk.failed() {
                done.unwrap_or_else(|error| panic!("{place}: {error}"));
                installed += 1;
                break;
            }
            faults += 1;
            disk.lose(&mut chance);
            opens_one_of(&bench, &allowed, &place);
            // What was opened works in two of three cases, else the next start returns.
            if chance.below(3) > 0 && status(&bench.slots()).unwrap().is_some() {
                bench.confirm();
            }
        }
    }
    assert!(faults > 5000, "{faults} faults");
}

/// The disk of this machine, on which this process is killed at operation number `at`; a write is then half
/// done.
#[cfg(unix)]
struct KillingDisk {
    at: usize,
}

#[cfg(unix)]
impl KillingDisk {
    fn step(&mut self) {
        match self.at.checked_sub(1) {
            Some(left) => self.at = left,
            None => {
                let me = std::process::id().to_string();
                std::process::Command::new("kill").args(["-9", &me]).status().unwrap();
                unreachable!("nothing runs after kill -9");
            }
        }
    }
}

#[cfg(unix)]
impl Files for KillingDisk {
    fn create_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step();
        Disk.create_folder(path)
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if self.at == 0 {
            Disk.write(path, &bytes[..bytes.len() / 2])?;
        }
        self.step();
        Disk.write(path, bytes)
    }

    fn sync(&mut self, path: &Path) -> io::Result<()> {
        self.step();
        Disk.sync(path)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.step();
        Disk.rename(from, to)
    }

    fn sync_folder(&mut self, path: &Path) -> io::Result<()> {
        self.step();
        Disk.sync_folder(path)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.step();
        Disk.remove(path)
    }
}

/// Names the folder of the bench to the children below, and to one of them the bundle and the operation.
const BENCH: &str = "DRAM_TEST_BENCH";
const INDEX: &str = "DRAM_TEST_INDEX";
const AT: &str = "DRAM_TEST_AT";

/// This binary again, for one test that is ignored otherwise.
#[cfg(unix)]
fn child(bench: &Bench, test: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored"]).env(BENCH, bench.folder.path());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command
}

#[test]
#[cfg(unix)]
#[ignore = "the child that `killed_at_every_operation` starts, which kills itself"]
fn installs_once_and_is_killed() {
    let number = |name: &str| std::env::var(name).unwrap().parse::<usize>().unwrap();
    let folder = PathBuf::from(std::env::var_os(BENCH).expect("the parent names the bench"));
    let (slots, new) = (folder.join("slots"), folder.join(format!("{}.dram", number(INDEX))));
    let mut files = KillingDisk { at: number(AT) };
    Slots { folder: &slots, files: &mut files }.install(&new, &Options::default()).unwrap();
}

/// `installs` of them, each killed at its first operation, at its second, and so on until it is done.
#[cfg(unix)]
fn killed_at_every_operation(installs: usize) {
    let bench = Bench::new();
    bench.install(0);
    let mut kills = 0;
    for number in 1..=installs {
        let index = number % 5;
        for at in 0.. {
            let mut allowed = known(&bench);
            allowed.push(Some(bench.digests[index]));
            let mut child = child(&bench, "install::tests::installs_once_and_is_killed");
            let exit =
                child.env(INDEX, index.to_string()).env(AT, at.to_string()).status().unwrap();
            let place = format!("install {number}, killed at operation {at}");
            if exit.success() {
                break;
            }
            let signal = std::os::unix::process::ExitStatusExt::signal(&exit);
            assert_eq!(signal, Some(9), "{place}: {exit}");
            kills += 1;
            opens_one_of(&bench, &allowed, &place);
        }
        bench.open().unwrap();
        bench.confirm();
    }
    assert!(kills > 5 * installs, "{kills} kills");
}

#[test]
#[cfg(unix)]
fn a_process_killed_at_any_operation_of_ten_installs_leaves_a_good_bundle() {
    killed_at_every_operation(10);
}

#[test]
#[cfg(unix)]
#[ignore = "ten thousand processes, about three minutes"]
fn a_process_killed_at_every_operation_of_a_thousand_installs_leaves_a_good_bundle() {
    killed_at_every_operation(1000);
}

#[test]
#[ignore = "the child that `a_killed_process_leaves_a_good_bundle` starts and kills"]
fn installs_until_killed() {
    let folder = PathBuf::from(std::env::var_os(BENCH).expect("the parent names the bench"));
    let slots = folder.join("slots");
    for index in (0..5).cycle() {
        install(&folder.join(format!("{index}.dram")), &slots, &Options::default()).unwrap();
        open_current(&slots, &Options::default()).unwrap();
        confirm(&slots).unwrap();
    }
}

#[test]
#[cfg(unix)]
fn a_killed_process_leaves_a_good_bundle() {
    let bench = Bench::new();
    bench.install(0);
    let mut chance = Chance(4);
    for round in 0..25 {
        let mut child = child(&bench, "install::tests::installs_until_killed").spawn().unwrap();
        let before = bench.status();
        let begun = std::time::Instant::now();
        // Until it has done something, and then for a moment more.
        while bench.status() == before && begun.elapsed().as_secs() < 60 {
            std::thread::yield_now();
        }
        std::thread::sleep(std::time::Duration::from_micros(chance.below(20_000) as u64));
        child.kill().unwrap();
        let exit = child.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&exit),
            Some(9),
            "round {round}: {exit}"
        );
        let any: Vec<Option<Digest>> = bench.digests.iter().copied().map(Some).collect();
        opens_one_of(&bench, &any, &format!("round {round}"));
    }
}
