//! The notes over HTTP.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use tower_http::compression::CompressionLayer;
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use crate::store::{NewNote, Note, Store, sqlite_version};

/// Largest request, in bytes.
const BODY_MAX: usize = 64 << 10;

/// Longest time that a request may take.
const PATIENCE: Duration = Duration::from_secs(10);

type Shared = Arc<Mutex<Store>>;

pub fn routes(store: Shared) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/notes", get(find).post(add))
        .route("/notes/{id}", get(one).delete(remove))
        .with_state(store)
        .layer(CompressionLayer::new())
        .layer(RequestBodyLimitLayer::new(BODY_MAX))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, PATIENCE))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(TraceLayer::new_for_http())
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("there is no note {0}")]
    NoNote(i64),
    #[error("the database failed")]
    Database(#[from] rusqlite::Error),
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NoNote(_) => StatusCode::NOT_FOUND,
            Self::Database(error) => {
                tracing::error!(%error, "database");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        (status, format!("{self}\n")).into_response()
    }
}

/// Does something with the notes. Each takes so little time that nobody waits for another.
fn with<T>(store: &Shared, work: impl FnOnce(&Store) -> rusqlite::Result<T>) -> Result<T, Failure> {
    let store = store.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(work(&store)?)
}

async fn health(State(store): State<Shared>) -> Result<String, Failure> {
    let count = with(&store, |store| Ok(store.find("")?.len()))?;
    Ok(format!("ok: {count} notes in SQLite {}\n", sqlite_version()))
}

#[derive(Deserialize)]
struct Search {
    #[serde(default)]
    contains: String,
}

async fn find(State(store): State<Shared>, Query(search): Query<Search>) -> Result<Json<Vec<Note>>, Failure> {
    Ok(Json(with(&store, |store| store.find(&search.contains))?))
}

async fn add(State(store): State<Shared>, Json(note): Json<NewNote>) -> Result<(StatusCode, Json<Note>), Failure> {
    let note = with(&store, |store| store.add(note))?;
    Ok((StatusCode::CREATED, Json(note)))
}

async fn one(State(store): State<Shared>, Path(id): Path<i64>) -> Result<Json<Note>, Failure> {
    let note = with(&store, |store| store.get(id))?;
    note.map(Json).ok_or(Failure::NoNote(id))
}

async fn remove(State(store): State<Shared>, Path(id): Path<i64>) -> Result<StatusCode, Failure> {
    match with(&store, |store| store.remove(id))? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Failure::NoNote(id)),
    }
}
