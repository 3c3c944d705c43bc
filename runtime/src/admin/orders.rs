//! Orders, as they come through the socket: passed on to the pipeline, and answered once they are followed. Who gave one is
//! what the system says of the other end, never what the other end says of itself.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::serve::IncomingStream;
use serde::Deserialize;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;

use super::guard::Guarded;
use super::pages::refuse;
use super::{Followed, Shown, now_ms};
use crate::offset::TopicPartition;
use crate::pipeline::{Order, What};
use crate::plan::By;

/// An order is followed as soon as it is in the plan log. Shorter than who asks waits for an answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(super) struct Peer(String);

impl Connected<IncomingStream<'_, Guarded<TcpListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Guarded<TcpListener>>) -> Self {
        Self(stream.remote_addr().to_string())
    }
}

impl Connected<IncomingStream<'_, Guarded<UnixListener>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Guarded<UnixListener>>) -> Self {
        Self(match stream.io().io().peer_cred() {
            Ok(of) => match of.pid() {
                Some(pid) => format!("uid {} (process {pid})", of.uid()),
                None => format!("uid {}", of.uid()),
            },
            Err(_) => "somebody".to_owned(),
        })
    }
}

pub(super) async fn pause(shown: State<Arc<Shown>>, peer: ConnectInfo<Peer>, body: Bytes) -> Response {
    give(What::Pause, &shown, peer.0, &body).await
}

pub(super) async fn resume(shown: State<Arc<Shown>>, peer: ConnectInfo<Peer>, body: Bytes) -> Response {
    give(What::Resume, &shown, peer.0, &body).await
}

async fn give(what: What, shown: &Shown, Peer(who): Peer, body: &[u8]) -> Response {
    let of = match partition(body) {
        Ok(of) => of,
        Err(error) => {
            let hint = "leave it empty, or send {\"topic\": \"T\", \"partition\": N}";
            return refuse(
                StatusCode::BAD_REQUEST,
                &format!("the body is no partition: {error}"),
                Some(hint),
            );
        }
    };
    let order = Order { what, of, by: By { who, at_ms: now_ms() } };
    let (tell, told) = oneshot::channel();
    // Nobody waits any more: the order is followed all the same.
    if !shown.handle.give(order, Box::new(move |answer| drop(tell.send(answer)))) {
        return refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            "it takes no orders at the moment",
            Some("ask again"),
        );
    }
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(Ok((changed, status)))) => {
            Json(Followed { changed, process: shown.process.clone(), status }).into_response()
        }
        Ok(Ok(Err(no))) => refuse(StatusCode::CONFLICT, &no.text, no.hint.as_deref()),
        Ok(Err(_)) => refuse(StatusCode::SERVICE_UNAVAILABLE, "the pipeline ended before it answered", None),
        Err(_) => {
            let hint = "it may still be followed: `weir status` shows it";
            refuse(StatusCode::GATEWAY_TIMEOUT, "no answer to the order yet", Some(hint))
        }
    }
}

/// The partition that is meant; all if the body is empty.
fn partition(body: &[u8]) -> Result<Option<TopicPartition>, serde_json::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct One {
        topic: Arc<str>,
        partition: i32,
    }
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let One { topic, partition } = serde_json::from_slice(body)?;
    Ok(Some(TopicPartition::new(topic, partition)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_one_partition_or_none_and_nothing_else() {
        let all = [partition(b""), partition(b" \n")];
        assert!(all.into_iter().all(|of| of.expect("empty is all").is_none()));
        let one = partition(br#"{"topic":"t","partition":3}"#).unwrap();
        assert_eq!(one, Some(TopicPartition::new("t", 3)));
        for bad in ["{}", r#"{"topic":"t"}"#, r#"{"topic":"t","partition":3,"and":1}"#, "[]", "null", "x"] {
            assert!(partition(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
