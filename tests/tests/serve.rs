//! The service as its clients see it: every line has its one answer, whatever others do.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use dram_runtime::graph::{Attribute, Dim, Node, ValueSpec};
use dram_runtime::{DType, Graph, Options, Prediction, Session, Tensor};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

use crate::dram::{dram, dram_reading, intents, program, text, tiny_bundle};

/// A running service; killed where a test does not end it.
struct Service {
    child: Child,
    folder: TempDir,
}

impl Service {
    /// Starts `dram serve` on a socket, and returns when it answers there.
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Service {
        let folder = tempdir().expect("a folder");
        let child = Command::new(program())
            .args(["serve", &intents(), "--socket", &text(&folder.path().join("socket"))])
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dram starts");
        let mut service = Service { child, folder };
        let stderr = service.child.stderr.as_mut().expect("stderr is piped");
        // Unbuffered: what follows the line is read at the end.
        let (mut line, mut byte) = (Vec::new(), [0]);
        while byte != *b"\n" && stderr.read_exact(&mut byte).is_ok() {
            line.extend(byte);
        }
        assert!(line.starts_with(b"serving on "), "{}", String::from_utf8_lossy(&line));
        service
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn connect(&self) -> Connection {
        let stream = UnixStream::connect(self.socket()).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        Connection { reader: BufReader::new(stream.try_clone().expect("a socket")), stream }
    }

    /// Physical memory that it holds, in bytes.
    fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Processor time that it has used, in ticks of 10 ms.
    fn ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("it runs");
        // proc(5): user and system time are fields 14 and 15; the name before may hold spaces.
        let fields: Vec<&str> =
            stat.rsplit(')').next().expect("fields").split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("ticks")).sum()
    }

    /// Asks it to end; gives what it said, once it has ended in order.
    fn stop(mut self) -> String {
        signal(&self.child, "TERM");
        let status = self.child.wait().expect("it ends");
        let mut said = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("UTF-8");
        assert!(status.success(), "{status}: {said}");
        assert!(!self.socket().exists(), "the socket is removed");
        said
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let kill = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(kill.expect("kill runs").success());
}

struct Connection {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
}

impl Connection {
    fn send(&mut self, lines: &str) {
        self.stream.write_all(lines.as_bytes()).expect("it reads");
    }

    /// The next reply; `None` where the connection has ended.
    fn receive(&mut self) -> Option<Value> {
        let mut line = String::new();
        let length = self.reader.read_line(&mut line).expect("a reply within a minute");
        (length > 0).then(|| serde_json::from_str(&line).expect("a reply is one JSON document"))
    }

    fn ask(&mut self, line: &str) -> Value {
        self.send(&format!("{line}\n"));
        self.receive().expect("a reply")
    }
}

const TEXTS: [&str; 5] = [
    "wake me at six",
    "what is the weather in Zürich",
    "",
    "play some music",
    "transfer 20 € to my savings",
];

/// What the library says of each of [`TEXTS`].
fn expected() -> Vec<String> {
    let session = Session::open(intents().as_ref(), &Options::default()).expect("it opens");
    let label = |text: &&str| match session.predict(text).expect("a prediction") {
        Prediction::Labels(labels) => labels[0].label.clone(),
        Prediction::Embedding(_) => panic!("the zoo's bundle classifies"),
    };
    TEXTS.iter().map(label).collect()
}

/// Line `number` of client `client`, and how to know its reply.
fn request(client: usize, number: usize) -> (String, Expected) {
    let id = format!("{client}-{number}");
    let text = (client + number) % TEXTS.len();
    match number % 16 {
        3 => ("{\"id\": 5, \"text\"".to_owned(), Expected::Error(Value::Null)),
        7 => (json!({ "id": id, "txet": "" }).to_string(), Expected::Error(json!(id))),
        11 => ("x".repeat(20_000), Expected::Error(Value::Null)),
        // The id as a number, with spaces around.
        13 => (
            format!(" {{\"text\": {}, \"id\": {number}}} ", json!(TEXTS[text])),
            Expected::Label(json!(number), text),
        ),
        _ => {
            (json!({ "id": id, "text": TEXTS[text] }).to_string(), Expected::Label(json!(id), text))
        }
    }
}

enum Expected {
    Label(Value, usize),
    Error(Value),
}

/// `each` requests of each of 64 clients, up to six of them on the way at a time.
fn many_clients(each: usize) {
    const CLIENTS: usize = 64;
    let labels = expected();
    let service = Service::start(&["--top", "1", "--ram", "16MiB"], &[]);
    let converse = |client: usize, numbers: std::ops::Range<usize>| {
        let mut connection = service.connect();
        let (mut asked, mut awaited) = (numbers.clone(), numbers);
        let (mut before, mut on_the_way) = (String::new(), std::collections::VecDeque::new());
        while !awaited.is_empty() {
            while on_the_way.len() < 6
                && let Some(number) = asked.next()
            {
                let (line, expected) = request(client, number);
                before += &line;
                before.push('\n');
                on_the_way.push_back(expected);
            }
            connection.send(&std::mem::take(&mut before));
            let reply = connection.receive().expect("a reply");
            match on_the_way.pop_front().expect("a request") {
                Expected::Label(id, text) => {
                    assert_eq!(reply["id"], id, "{reply}");
                    assert_eq!(reply["labels"][0]["label"], labels[text].as_str(), "{reply}");
                }
                Expected::Error(id) => {
                    assert!(reply["id"] == id && reply["error"].is_string(), "{reply}");
                }
            }
            awaited.next();
        }
    };
    let all = |numbers: std::ops::Range<usize>| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    scope.spawn({
                        let numbers = numbers.clone();
                        move || converse(client, numbers)
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().expect("no client complains"));
        });
    };
    // The system's allocator gives pages back and takes them again: RSS goes up and down by a megabyte.
    // What is lost for good would lift the lowest of them, of so many that not all fall on an upper turn. In the
    // first quarter pages of the program and of the weights are touched for the first time.
    const PARTS: usize = 32;
    let part = |number: usize| each * number / PARTS;
    let held: Vec<u64> = (0..PARTS)
        .map(|number| {
            all(part(number)..part(number + 1));
            service.rss()
        })
        .collect();
    let _ = writeln!(std::io::stderr(), "{} requests: RSS by parts {held:?}", CLIENTS * each);
    let (before, after) = held[PARTS / 4..].split_at(PARTS * 3 / 8);
    let lowest = |parts: &[u64]| parts.iter().copied().min();
    let floor = lowest(before).expect("parts before");
    assert!(lowest(after) <= Some(floor + 256 * 1024), "RSS grew: {held:?}");
    let wrong = (0..each).filter(|number| [3, 7, 11].contains(&(number % 16))).count();
    let served =
        format!("{} requests answered, {} refused", CLIENTS * (each - wrong), CLIENTS * wrong);
    assert!(service.stop().contains(&served), "expected {served}");
}

#[test]
fn twenty_thousand_requests_of_64_clients_all_have_their_own_answers() {
    many_clients(320);
}

#[test]
#[ignore = "a million requests, about four minutes"]
fn a_million_requests_of_64_clients_all_have_their_own_answers() {
    many_clients(15_625);
}

#[test]
fn a_client_who_reads_nothing_keeps_nobody_waiting() {
    let service = Service::start(&["--queue", "16"], &[]);
    let mut deaf: Vec<Connection> = (0..8).map(|_| service.connect()).collect();
    let flood = format!("{}\n", json!({ "id": 0, "text": "hello" })).repeat(20_000);
    for connection in &mut deaf {
        connection.stream.set_nonblocking(true).expect("a socket");
        // As much as the system takes: reading stops when nobody reads the replies.
        while connection.stream.write(flood.as_bytes()).is_ok_and(|count| count > 0) {}
    }
    let mut connection = service.connect();
    for number in 0..100 {
        let asked = Instant::now();
        assert_eq!(
            connection.ask(&json!({ "id": number, "text": "hello" }).to_string())["id"],
            number
        );
        assert!(asked.elapsed() < Duration::from_secs(5), "request {number}");
    }
    drop(deaf);
    service.stop();
}

#[test]
fn nothing_to_do_costs_no_processor_time() {
    let service = Service::start(&[], &[]);
    let mut connection = service.connect();
    connection.ask(r#"{"text": "hello"}"#);
    // A hung-up client and one who is still there: neither is looked after in a loop.
    drop(service.connect());
    connection.ask(r#"{"text": "hello"}"#);
    let before = service.ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(service.ticks() - before <= 1, "{} ticks", service.ticks() - before);
    service.stop();
}

#[test]
fn what_was_asked_before_the_end_is_answered() {
    let service = Service::start(&[], &[]);
    let mut connection = service.connect();
    let lines: String =
        (0..50).map(|number| format!("{}\n", json!({ "id": number, "text": "hello" }))).collect();
    connection.send(&lines);
    assert_eq!(connection.receive().expect("a reply")["id"], 0);
    service.stop();
    // All 50 lines had come in one piece before the first reply went out.
    for number in 1..50 {
        assert_eq!(connection.receive().expect("a reply")["id"], number);
    }
    assert_eq!(connection.receive(), None);
}

#[test]
fn a_late_turn_is_an_error_and_a_long_line_is_not_kept() {
    let lines = format!("{}\n{}\n", json!({ "id": 1, "text": "a" }), "x".repeat(10_000_000));
    let serve = |arguments: &[&str]| {
        let outcome = dram_reading(&lines, &[&["serve", &intents()], arguments].concat()).expect(0);
        let replies: Vec<Value> =
            outcome.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(replies.len(), 2, "{outcome:?}");
        replies
    };
    let replies = serve(&["--deadline", "0ms"]);
    assert!(
        replies[0]["id"] == 1 && replies[0]["error"].as_str().is_some_and(|it| it.contains("0 ms"))
    );
    // Ten megabytes would not fit.
    let replies = serve(&["--ram", "13MiB", "--max-request", "1000"]);
    assert!(
        replies[0]["labels"].is_array()
            && replies[1]["error"].as_str().is_some_and(|it| it.contains("1000"))
    );
}

/// A model that computes for seconds: `[2048, 2048]` times itself, again and again.
fn slow() -> Graph {
    let value = |name: &str| ValueSpec::new(name, DType::F32, &[Dim::Fixed(1), Dim::Fixed(4)]);
    let mut nodes = vec![Node::new("Pad", &["x", "pads"], &["p0"])];
    for turn in 0..40 {
        let (before, product) = (format!("p{turn}"), format!("p{}", turn + 1));
        nodes.push(Node::new("MatMul", &[&before, &before], &[&product]));
    }
    nodes.push(Node::new("ReduceSum", &["p40"], &["sum"]).with("keepdims", Attribute::Int(0)));
    nodes.push(Node::new("Add", &["x", "sum"], &["y"]));
    Graph {
        name: "slow".to_owned(),
        opsets: [(String::new(), 17)].into(),
        inputs: vec![value("x")],
        outputs: vec![value("y")],
        nodes,
        initializers: [("pads".to_owned(), Tensor::from_i64(&[4], &[0, 0, 2047, 2044]))].into(),
        ..Graph::default()
    }
}

#[test]
fn who_waits_for_a_slow_answer_is_told_at_the_deadline() {
    let folder = tempdir().expect("a folder");
    let path = folder.path().join("slow.onnx");
    std::fs::write(&path, slow().to_onnx()).expect("a file");
    let mut child = Command::new(program())
        .args(["serve", &text(&path), "--deadline", "300ms"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("dram starts");
    let request = |id: u32| {
        let x = json!({ "shape": [1, 4], "values": [0.0, 0.1, 0.0, 0.1] });
        format!("{}\n", json!({ "id": id, "inputs": { "x": x } }))
    };
    let both = request(1) + &request(2);
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(both.as_bytes()).expect("it reads");
    drop(stdin);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    // The second one's turn never comes in time.
    for id in [1, 2] {
        let reply: Value =
            serde_json::from_str(&lines.next().expect("a reply").expect("UTF-8")).expect("JSON");
        let told = reply["error"].as_str().is_some_and(|it| it.contains("deadline of 300 ms"));
        assert!(told && reply["id"] == id, "{reply}");
    }
    let told = Instant::now();
    assert!(lines.next().is_none(), "each line has one reply");
    assert!(child.wait().expect("it ends").success());
    // What is being computed is not cut off; its client has not waited for it.
    assert!(told.elapsed() > Duration::from_millis(200), "{:?}", told.elapsed());
}

#[test]
fn the_service_is_part_of_the_budget() {
    let plan = dram(&["plan", &intents(), "--json"]).expect(0).json();
    let bytes = plan["peak_bytes"].as_u64().expect("bytes").to_string();
    let outcome = dram(&["serve", &intents(), "--ram", &bytes]).expect(1);
    assert!(outcome.stderr.contains("the budget is"), "{outcome:?}");
}

#[test]
fn a_socket_in_use_is_refused_and_a_stale_one_replaced() {
    let service = Service::start(&[], &[]);
    let socket = text(&service.socket());
    let outcome = dram(&["serve", &intents(), "--socket", &socket]).expect(2);
    assert!(outcome.stderr.contains("already"), "{outcome:?}");
    let mut service = service;
    service.child.kill().expect("it runs");
    service.child.wait().expect("it ends");
    assert!(service.socket().exists());
    let mut next = Command::new(program())
        .args(["serve", &intents(), "--socket", &socket])
        .stderr(Stdio::piped())
        .spawn()
        .expect("dram starts");
    let mut said = BufReader::new(next.stderr.take().expect("piped")).lines();
    assert!(said.next().expect("a line").expect("UTF-8").starts_with("serving on"));
    signal(&next, "INT");
    assert!(next.wait().expect("it ends").success());
}

#[test]
fn a_supervisor_hears_when_it_is_ready_alive_and_stopping() {
    let name = format!("dram-test-{}", std::process::id());
    let ear = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("a name"));
    let ear = ear.expect("a socket");
    ear.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let hear = || {
        let mut told = [0; 64];
        let length = ear.recv(&mut told).expect("news within a minute");
        String::from_utf8_lossy(&told[..length]).into_owned()
    };
    let notify = format!("@{name}");
    let service = Service::start(&[], &[("NOTIFY_SOCKET", &notify), ("WATCHDOG_USEC", "200000")]);
    assert_eq!(hear(), "READY=1");
    for _ in 0..3 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    service.stop();
    let last = std::iter::repeat_with(hear).find(|told| told != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
}

/// `dram serve` of a slot folder on its stdin.
struct OnTrial {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<std::process::ChildStderr>,
}

impl OnTrial {
    fn start(slots: &str) -> OnTrial {
        let mut child = Command::new(program())
            .args(["serve", slots])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dram starts");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        OnTrial { child, stdin, stdout, stderr }
    }

    /// What it says before it serves.
    fn until_ready(&mut self) -> String {
        let mut said = String::new();
        while !said.contains("serving on") {
            assert!(self.stderr.read_line(&mut said).expect("UTF-8") > 0, "{said}");
        }
        said
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.stdin, "{request}").expect("it reads");
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("UTF-8");
        serde_json::from_str(&line).expect("a reply")
    }

    fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

#[test]
fn a_new_bundle_that_is_killed_before_its_first_answer_gives_way_to_the_one_before() {
    let folder = tempdir().expect("a folder");
    let slots = text(&folder.path().join("slots"));
    let new = tiny_bundle(folder.path());
    let install = |bundle: &str| dram(&["install", bundle, "--slot-dir", &slots]).expect(0);
    let for_texts = json!({ "id": 1, "text": "wake me at six" });
    let of_three = |values: [i64; 3]| json!({ "shape": [1, 3], "values": values });
    let inputs = json!({ "input_ids": of_three([3, 10, 17]), "attention_mask": of_three([1; 3]) });
    let for_tensors = json!({ "id": 2, "inputs": inputs });

    install(&intents());
    let mut first = OnTrial::start(&slots);
    assert_eq!(first.ask(&for_texts)["labels"][0]["label"], "alarm");
    first.kill();

    install(&new);
    let mut killed = OnTrial::start(&slots);
    killed.until_ready();
    killed.kill();
    let mut back = OnTrial::start(&slots);
    assert!(back.until_ready().contains("back to the bundle before"));
    assert_eq!(back.ask(&for_texts)["labels"][0]["label"], "alarm");
    back.kill();

    install(&new);
    let mut answered = OnTrial::start(&slots);
    assert_eq!(answered.ask(&for_tensors)["outputs"][0]["shape"], json!([1, 5]));
    answered.kill();
    let mut stays = OnTrial::start(&slots);
    assert!(!stays.until_ready().contains("back"));
    assert!(stays.ask(&for_tensors)["outputs"].is_array());
    stays.kill();
}
