//! Keeps short notes: HTTP in front, SQLite behind.

mod store;
mod web;

use std::env;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use store::Store;

/// Where it listens unless `NOTES_ADDRESS` says otherwise.
const ADDRESS: &str = "0.0.0.0:8080";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_ansi(false).init();
    let store = match env::var("NOTES_DATABASE") {
        Ok(path) => Store::open(&path).with_context(|| format!("cannot open the database `{path}`"))?,
        Err(_) => {
            tracing::warn!("NOTES_DATABASE is not set: notes are gone when this ends");
            Store::in_memory()?
        }
    };
    let address = env::var("NOTES_ADDRESS").unwrap_or_else(|_| ADDRESS.to_owned());
    let listener = TcpListener::bind(&address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    tracing::info!(%address, sqlite = store::sqlite_version(), "ready");
    let routes = web::routes(Arc::new(Mutex::new(store)));
    axum::serve(listener, routes).with_graceful_shutdown(stopped()).await?;
    Ok(())
}

/// Waits until an engine stops the container, or somebody types control-C.
async fn stopped() {
    let terminated = signal(SignalKind::terminate());
    let interrupted = signal(SignalKind::interrupt());
    if let (Ok(mut terminated), Ok(mut interrupted)) = (terminated, interrupted) {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    }
}
