//! The *connection*: requests are read, acted on as the rules say, and answered.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::Shutdown;

use super::answers::{chunk_refusal, handle, refusal};
use super::*;

pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) length: usize,
}

pub(super) fn read_request(input: &mut impl io::BufRead) -> io::Result<Option<(Request, String)>> {
    let mut line = String::new();
    if input.take(1 << 16).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut headers = BTreeMap::new();
    loop {
        let mut header = String::new();
        input.take(1 << 16).read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let length = headers
        .get("content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query,
        headers,
        length,
    };
    Ok(Some((request, target.to_owned())))
}

pub(super) fn serve(shared: &Shared, connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut input = BufReader::new(connection.try_clone()?);
    while let Some((request, target)) = read_request(&mut input)? {
        let busy = shared.busy.fetch_add(1, Ordering::SeqCst) + 1;
        shared.busiest.fetch_max(busy, Ordering::SeqCst);
        let at = {
            let mut log = lock(&shared.log);
            log.push(Seen {
                method: request.method.clone(),
                path: target,
                headers: request.headers.clone(),
                body: 0,
                text: String::new(),
                status: 0,
            });
            log.len() - 1
        };
        let result = answer(shared, &request, &mut input, &connection, at);
        shared.busy.fetch_sub(1, Ordering::SeqCst);
        if !result? {
            return Ok(());
        }
    }
    Ok(())
}

/// The act of the first rule that means this request.
pub(super) fn act_for(shared: &Shared, method: &str, target: &str) -> Option<Arc<Act>> {
    let mut rules = lock(&shared.rules);
    for rule in rules.iter_mut() {
        let fits = (rule.method == "*" || rule.method == method) && target.contains(&rule.path);
        if !fits || rule.times == 0 {
            continue;
        }
        if rule.skip > 0 {
            rule.skip -= 1;
            continue;
        }
        rule.times -= 1;
        return Some(rule.act.clone());
    }
    None
}

/// Answers a request; `false` ends the connection.
pub(super) fn answer(
    shared: &Shared,
    request: &Request,
    input: &mut impl Read,
    connection: &TcpStream,
    at: usize,
) -> io::Result<bool> {
    let target = lock(&shared.log)[at].path.clone();
    let mut act = act_for(shared, &request.method, &target);
    if let Some(Act::First(first)) = act.as_deref() {
        first(shared);
        act = act_for(shared, &request.method, &target);
    }
    let mut limit = usize::MAX;
    match act.as_deref() {
        Some(Act::Early(answer)) => return early(shared, answer, input, connection, at),
        Some(Act::CutRequest(bytes) | Act::Stall(bytes)) => limit = *bytes,
        _ => {}
    }
    if let Some(refused) = refusal(shared, request) {
        return early(shared, &refused, input, connection, at);
    }
    let took = take_body(shared, request, input, limit, at)?;
    match act.as_deref() {
        Some(Act::CutRequest(_)) => {
            connection.shutdown(Shutdown::Both)?;
            return Ok(false);
        }
        Some(Act::Stall(_)) => {
            std::thread::sleep(Duration::from_secs(3));
            return Ok(false);
        }
        _ => {}
    }
    let mut answer = match act.as_deref() {
        Some(Act::Reply(answer) | Act::Endless(answer) | Act::Drip(answer)) => answer.clone(),
        _ => handle(shared, request, took),
    };
    if let Some(Act::Edit(edit)) = act.as_deref() {
        edit(&mut answer);
    }
    lock(&shared.log)[at].status = answer.status;
    send(&answer, request, connection, act.as_deref())
}

/// Answers at once, and lets the client read that before the connection ends, as Go's server does.
pub(super) fn early(
    shared: &Shared,
    answer: &Answer,
    input: &mut impl Read,
    mut connection: &TcpStream,
    at: usize,
) -> io::Result<bool> {
    lock(&shared.log)[at].status = answer.status;
    let head = lock(&shared.log)[at].method == "HEAD";
    let close = answer.clone().with("Connection", "close");
    connection.write_all(&head_of(&close, close.body.len()))?;
    if !head {
        connection.write_all(&close.body)?;
    }
    connection.shutdown(Shutdown::Write)?;
    connection.set_read_timeout(Some(Duration::from_millis(500)))?;
    let _ = io::copy(&mut input.take(256 << 10), &mut io::sink());
    Ok(false)
}

pub(super) fn head_of(answer: &Answer, length: usize) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {} Said\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    let named = answer
        .headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if !named && answer.status != 204 {
        head += &format!("Content-Length: {length}\r\n");
    }
    (head + "\r\n").into_bytes()
}

pub(super) fn send(
    answer: &Answer,
    request: &Request,
    mut connection: &TcpStream,
    act: Option<&Act>,
) -> io::Result<bool> {
    match act {
        Some(Act::Endless(_)) => {
            connection.write_all(&head_of(answer, 1 << 50))?;
            loop {
                connection.write_all(&[b'x'; 1 << 14])?;
            }
        }
        Some(Act::Drip(_)) => {
            connection.write_all(&head_of(answer, answer.body.len().max(1000)))?;
            for piece in answer.body.chunks((answer.body.len() / 40).max(1)) {
                connection.write_all(piece)?;
                std::thread::sleep(Duration::from_millis(20));
            }
            std::thread::sleep(Duration::from_secs(3));
            return Ok(false);
        }
        _ => {}
    }
    let mut bytes = head_of(answer, answer.body.len());
    if request.method != "HEAD" {
        bytes.extend_from_slice(&answer.body);
    }
    if let Some(Act::CutAnswer(end)) = act {
        connection.write_all(&bytes[..bytes.len().min(*end)])?;
        connection.shutdown(Shutdown::Both)?;
        return Ok(false);
    }
    connection.write_all(&bytes)?;
    Ok(true)
}

/// The body of a request: into its upload as it comes, else into memory.
pub(super) struct Took {
    pub(super) bytes: Vec<u8>,
    pub(super) refused: Option<Answer>,
}

pub(super) fn upload_id(path: &str) -> Option<&str> {
    let (_, id) = path.split_once("/blobs/uploads/")?;
    (!id.is_empty()).then_some(id)
}

pub(super) fn take_body(
    shared: &Shared,
    request: &Request,
    input: &mut impl Read,
    limit: usize,
    at: usize,
) -> io::Result<Took> {
    let mut took = Took {
        bytes: Vec::new(),
        refused: chunk_refusal(shared, request),
    };
    let id = upload_id(&request.path).filter(|_| took.refused.is_none());
    let mut left = request.length.min(limit);
    let mut buffer = vec![0; 64 << 10];
    let throttle = lock(&shared.ways).throttle;
    while left > 0 {
        if let Some(rest) = throttle {
            std::thread::sleep(rest);
        }
        let want = left.min(buffer.len());
        let count = input.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= count;
        lock(&shared.log)[at].body += count;
        let mut store = lock(&shared.store);
        match id.and_then(|id| store.uploads.get_mut(id)) {
            Some(upload) => upload.bytes.extend_from_slice(&buffer[..count]),
            None => took.bytes.extend_from_slice(&buffer[..count]),
        }
    }
    let mut log = lock(&shared.log);
    if took.bytes.len() < 1 << 16 {
        log[at].text = String::from_utf8_lossy(&took.bytes).into_owned();
    }
    Ok(took)
}
