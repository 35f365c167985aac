//! The *answers* that the specification has for requests.

use super::connection::{Request, Took, upload_id};
use super::*;

/// Why a request is refused before its body is read: no login, or no token.
pub(super) fn refusal(shared: &Shared, request: &Request) -> Option<Answer> {
    let ways = lock(&shared.ways).clone();
    let shown = request
        .headers
        .get("authorization")
        .map(String::as_str)
        .unwrap_or_default();
    if !request.path.starts_with("/v2/") {
        return None;
    }
    if let Some((name, password)) = &ways.basic {
        return (shown != basic(name, password)).then(|| {
            Answer::error(401, "UNAUTHORIZED", "who are you").with("WWW-Authenticate", "Basic realm=\"test\"")
        });
    }
    if !ways.tokens {
        return None;
    }
    let repository = repository_of(&request.path);
    let action = if matches!(request.method.as_str(), "GET" | "HEAD") {
        "pull"
    } else {
        "pull,push"
    };
    let wanted = format!("repository:{repository}:{action}");
    let store = lock(&shared.store);
    let allowed = shown.strip_prefix("Bearer ").and_then(|token| store.tokens.get(token));
    let covers = |scope: &String| scope == &wanted || scope == &format!("repository:{repository}:pull,push");
    if allowed.is_some_and(|scopes| scopes.iter().any(covers)) {
        return None;
    }
    let error = if allowed.is_some() {
        ",error=\"insufficient_scope\""
    } else {
        ""
    };
    let challenge = format!(
        "Bearer realm=\"http://{}/token?static=1\",service=\"test\",scope=\"{wanted}\"{error}",
        ways.realm.as_ref().unwrap_or(&shared.host)
    );
    Some(Answer::error(401, "UNAUTHORIZED", "authentication required").with("WWW-Authenticate", challenge))
}

pub(in super::super) fn basic(name: &str, password: &str) -> String {
    use base64::Engine as _;
    format!(
        "Basic {}",
        base64::prelude::BASE64_STANDARD.encode(format!("{name}:{password}"))
    )
}

pub(super) fn repository_of(path: &str) -> String {
    let path = path.strip_prefix("/v2/").unwrap_or(path);
    let end = ["/manifests/", "/blobs/", "/referrers/"]
        .iter()
        .filter_map(|mark| path.find(mark))
        .min();
    path[..end.unwrap_or(path.len())].to_owned()
}

pub(super) fn chunk_refusal(shared: &Shared, request: &Request) -> Option<Answer> {
    if request.method != "PATCH" {
        return None;
    }
    let ways = lock(&shared.ways);
    let store = lock(&shared.store);
    let upload = store.uploads.get(upload_id(&request.path)?)?;
    if ways.no_chunks {
        return Some(Answer::error(405, "UNSUPPORTED", "no chunks here"));
    }
    if ways.chunk_max.is_some_and(|max| request.length > max) {
        return Some(Answer::error(
            416,
            "RANGE_INVALID",
            "exceeds the maximum permissible limit",
        ));
    }
    let range = request.headers.get("content-range")?;
    let start = range.split('-').next()?.parse::<usize>().ok()?;
    (start != upload.bytes.len()).then(|| Answer::error(416, "RANGE_INVALID", "out of order"))
}

pub(super) fn handle(shared: &Shared, request: &Request, took: Took) -> Answer {
    let path = request.path.clone();
    let repository = repository_of(&path);
    let rest = path.strip_prefix(&format!("/v2/{repository}/")).unwrap_or_default();
    if path == "/v2/" {
        return Answer::new(200).text("{}");
    }
    if path == "/token" {
        return token(shared, request, &took.bytes);
    }
    if let Some(reference) = rest.strip_prefix("manifests/") {
        return manifest(shared, request, &repository, reference, took.bytes);
    }
    if let Some(digest) = rest.strip_prefix("referrers/") {
        return referrers(shared, &repository, digest);
    }
    if rest.starts_with("blobs/uploads/") {
        return upload(shared, request, &repository, took.refused);
    }
    let Some(digest) = rest
        .strip_prefix("blobs/")
        .and_then(|digest| digest.parse::<Digest>().ok())
    else {
        return Answer::error(404, "NOT_FOUND", "no such path");
    };
    let store = lock(&shared.store);
    let Some(blob) = store.blobs.get(&(repository, digest)) else {
        return Answer::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let from = request
        .headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        Some(from) => Answer::new(206)
            .with(
                "Content-Range",
                format!("bytes {from}-{}/{}", blob.len() - 1, blob.len()),
            )
            .text(&blob[from..]),
        None => Answer::new(200)
            .with("Docker-Content-Digest", digest.to_string())
            .text(blob.clone()),
    }
}

pub(super) fn token(shared: &Shared, request: &Request, body: &[u8]) -> Answer {
    let ways = lock(&shared.ways).clone();
    let form: Vec<(String, String)> = url::form_urlencoded::parse(body).into_owned().collect();
    let scopes: Vec<String> = if request.method == "POST" {
        let scope = form
            .iter()
            .find(|(name, _)| name == "scope")
            .map(|(_, scope)| scope.clone());
        scope.unwrap_or_default().split(' ').map(str::to_owned).collect()
    } else {
        request
            .query
            .iter()
            .filter(|(name, _)| name == "scope")
            .map(|(_, scope)| scope.clone())
            .collect()
    };
    if let Some((name, password)) = &ways.login {
        let shown = request.headers.get("authorization").map(String::as_str);
        let refreshed = form
            .iter()
            .any(|(name, value)| name == "refresh_token" && value == password);
        if shown != Some(basic(name, password).as_str()) && !refreshed {
            return Answer::new(401).text("{\"details\":\"incorrect username or password\"}");
        }
    }
    let token = match &*lock(&shared.mint) {
        Some(mint) => mint(&scopes),
        None => format!("token-{}", shared.next.fetch_add(1, Ordering::Relaxed)),
    };
    lock(&shared.store).tokens.insert(token.clone(), scopes);
    let name = if request.method == "POST" {
        "access_token"
    } else {
        "token"
    };
    let mut answer = serde_json::json!({ name: token });
    if let Some(seconds) = ways.expires_in {
        answer["expires_in"] = seconds.into();
    }
    Answer::new(200)
        .with("Content-Type", "application/json")
        .text(answer.to_string())
}

pub(super) fn manifest(shared: &Shared, request: &Request, repository: &str, reference: &str, body: Vec<u8>) -> Answer {
    let ways = lock(&shared.ways).clone();
    let key = (repository.to_owned(), reference.to_owned());
    let mut store = lock(&shared.store);
    let etag = |bytes: &[u8]| format!("\"{}\"", Digest::of(bytes).hex());
    if request.method != "PUT" {
        let Some((bytes, kind)) = store.manifests.get(&key) else {
            return Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
        };
        let mut answer = Answer::new(200)
            .with("Content-Type", kind)
            .with("Docker-Content-Digest", Digest::of(bytes).to_string())
            .text(bytes.clone());
        if ways.etags {
            answer.set("ETag", etag(bytes));
        }
        return answer;
    }
    let now = store.manifests.get(&key).map(|(bytes, _)| etag(bytes));
    if request
        .headers
        .get("if-match")
        .is_some_and(|wanted| now.as_ref() != Some(wanted))
    {
        return Answer::error(412, "PRECONDITION_FAILED", "somebody was faster");
    }
    let read: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let layers = read["layers"].as_array().cloned().unwrap_or_default();
    for descriptor in layers
        .iter()
        .chain([&read["config"]])
        .filter(|descriptor| descriptor.is_object())
    {
        let digest: Digest = descriptor["digest"].as_str().unwrap_or_default().parse().unwrap();
        if !store.blobs.contains_key(&(repository.to_owned(), digest)) {
            return Answer::error(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry");
        }
    }
    for child in read["manifests"].as_array().into_iter().flatten() {
        let child = child["digest"].as_str().unwrap_or_default().to_owned();
        let index_of_referrers = reference.starts_with("sha256-");
        if !index_of_referrers && !store.manifests.contains_key(&(repository.to_owned(), child)) {
            return Answer::error(400, "MANIFEST_UNKNOWN", "a child is not there");
        }
    }
    let digest = Digest::of(&body);
    let mut answer = Answer::new(201)
        .with("Docker-Content-Digest", digest.to_string())
        .with("Location", format!("/v2/{repository}/manifests/{digest}"));
    let kind = request.headers.get("content-type").cloned().unwrap_or_default();
    let mut names = vec![reference.to_owned(), digest.to_string()];
    if ways.oci_tag {
        for (_, tag) in request.query.iter().filter(|(name, _)| name == "tag") {
            answer = answer.with("OCI-Tag", tag);
            names.push(tag.clone());
        }
    }
    if ways.referrers && read["subject"].is_object() {
        answer.set("OCI-Subject", read["subject"]["digest"].as_str().unwrap_or_default());
    }
    for name in names {
        store
            .manifests
            .insert((repository.to_owned(), name), (body.clone(), kind.clone()));
    }
    answer
}

pub(super) fn referrers(shared: &Shared, repository: &str, digest: &str) -> Answer {
    if !lock(&shared.ways).referrers {
        return Answer::new(404).text("404 page not found");
    }
    let store = lock(&shared.store);
    let mut listed = BTreeMap::new();
    for ((_, _), (bytes, kind)) in store.manifests.iter().filter(|((name, _), _)| name == repository) {
        let read: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        if read["subject"]["digest"] == digest {
            let entry = serde_json::json!({ "mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len(),
                "artifactType": read["artifactType"], "annotations": read["annotations"] });
            listed.insert(Digest::of(bytes), entry);
        }
    }
    let listed: Vec<_> = listed.into_values().collect();
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": listed });
    Answer::new(200)
        .with("Content-Type", "application/vnd.oci.image.index.v1+json")
        .text(index.to_string())
}

pub(super) fn location(repository: &str, id: &str, upload: &Upload) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}?_state={}", upload.state)
}

pub(super) fn parameter(request: &Request, name: &str) -> Option<String> {
    let found = request.query.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.clone())
}

/// Begins an upload, or mounts a blob.
pub(super) fn begin(shared: &Shared, request: &Request, repository: &str) -> Answer {
    let ways = lock(&shared.ways).clone();
    let mut store = lock(&shared.store);
    if let (Some(digest), Some(from)) = (parameter(request, "mount"), parameter(request, "from")) {
        let digest: Digest = digest.parse().unwrap();
        match (ways.mount, store.blobs.get(&(from, digest)).cloned()) {
            (None, Some(blob)) => {
                store.blobs.insert((repository.to_owned(), digest), blob);
                return Answer::new(201).with("Docker-Content-Digest", digest.to_string());
            }
            (Some(status), _) if status != 202 => return Answer::error(status, "UNSUPPORTED", "no mounts"),
            _ => {}
        }
    }
    let id = format!("upload-{}", shared.next.fetch_add(1, Ordering::Relaxed));
    let upload = Upload::default();
    let mut answer = Answer::new(202)
        .with("Location", location(repository, &id, &upload))
        .with("Range", "0-0");
    if let Some(least) = ways.min_chunk {
        answer.set("OCI-Chunk-Min-Length", least.to_string());
    }
    store.uploads.insert(id, upload);
    answer
}

pub(super) fn upload(shared: &Shared, request: &Request, repository: &str, refused: Option<Answer>) -> Answer {
    let Some(id) = upload_id(&request.path) else {
        return begin(shared, request, repository);
    };
    let ways = lock(&shared.ways).clone();
    let mut store = lock(&shared.store);
    let Some(upload) = store.uploads.get_mut(id) else {
        return Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "upload unknown to registry");
    };
    if ways.fresh_locations && parameter(request, "_state") != Some(upload.state.to_string()) {
        return Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "stale location");
    }
    match request.method.as_str() {
        "GET" if ways.no_status => Answer::error(405, "UNSUPPORTED", "no status"),
        "GET" => {
            let mut answer = Answer::new(204).with("Location", location(repository, id, upload));
            if !upload.bytes.is_empty() {
                answer.set("Range", format!("0-{}", upload.bytes.len() - 1));
            }
            answer
        }
        "PATCH" if refused.is_some() => refused.unwrap(),
        "PATCH" => {
            upload.state += 1;
            let end = upload.bytes.len().saturating_sub(1);
            let first = *upload.first_end.get_or_insert(end);
            let (status, end) = if ways.stuck_range { (201, first) } else { (202, end) };
            Answer::new(status)
                .with("Location", location(repository, id, upload))
                .with("Range", format!("0-{end}"))
        }
        "PUT" => {
            let digest: Digest = parameter(request, "digest").unwrap().parse().unwrap();
            let upload = store.uploads.remove(id).unwrap();
            if Digest::of(&upload.bytes) != digest {
                return Answer::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
            }
            store.blobs.insert((repository.to_owned(), digest), upload.bytes);
            Answer::new(201)
                .with("Docker-Content-Digest", digest.to_string())
                .with("Location", format!("/v2/{repository}/blobs/{digest}"))
        }
        "DELETE" => {
            store.uploads.remove(id);
            Answer::new(204)
        }
        _ => Answer::error(405, "UNSUPPORTED", "no such method"),
    }
}
