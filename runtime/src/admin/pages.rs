//! What is answered under which path. Each page is made from what the pipeline has shown, and from nothing else.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{any, get, post};
use axum::{Router, middleware};
use serde_json::json;

use super::{Answer, Shown, Tried, metrics, orders};
use crate::pipeline::status::Status;

/// The deciding thread turns many times a second, but for when it writes to the plan log: a cluster that is gone is waited
/// for some two minutes. If it is silent for longer than this, nothing will come of it.
const SILENCE: Duration = Duration::from_secs(180);

/// What an order may be long, in bytes.
const MOST: usize = 4 << 10;

const OVERVIEW: &str = "\
/healthz   200 as long as the process decides anything at all
/readyz    200 if its pipeline does what it is there for; otherwise 503 with what it waits for
/metrics   numbers, as Prometheus reads them
/status    everything, as JSON

At the socket, for whoever runs it, also:

POST /pause    read nothing more for now; with {\"topic\": \"T\", \"partition\": N}, of that partition
POST /resume   go on
GET  /shadow   what differs under the plan that is tried on live records, with some of these
";

/// Where everybody may look.
pub(super) fn for_all(shown: &Arc<Shown>) -> Router {
    let router = reading()
        .route("/pause", any(only_at_the_socket))
        .route("/resume", any(only_at_the_socket))
        .route("/shadow", any(not_for_all));
    finish(router, shown)
}

/// Where whoever runs it may change something, too.
pub(super) fn for_owner(shown: &Arc<Shown>) -> Router {
    let router = reading()
        .route("/pause", post(orders::pause))
        .route("/resume", post(orders::resume))
        .route("/shadow", get(shadow));
    finish(router.layer(DefaultBodyLimit::max(MOST)), shown)
}

fn reading() -> Router<Arc<Shown>> {
    Router::new()
        .route("/", get(|| async { OVERVIEW }))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/metrics", get(numbers))
        .route("/status", get(status))
}

fn finish(router: Router<Arc<Shown>>, shown: &Arc<Shown>) -> Router {
    router
        .fallback(unknown)
        .method_not_allowed_fallback(only_to_read)
        .layer(middleware::map_response(never_kept))
        .with_state(shown.clone())
}

/// An answer is true for a moment.
async fn never_kept(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn healthy(State(shown): State<Arc<Shown>>) -> Response {
    let silent = shown.handle.silent_for();
    match silent <= SILENCE {
        true => Json(json!({ "ok": true })).into_response(),
        false => {
            let error = format!("nothing was decided for {} s", silent.as_secs());
            refuse(StatusCode::SERVICE_UNAVAILABLE, &error, Some("end the process and start it again"))
        }
    }
}

async fn ready(State(shown): State<Arc<Shown>>) -> Response {
    let complaints = match shown.handle.has_begun() {
        true => shown.handle.status().complaints(),
        false => vec!["it has not begun".to_owned()],
    };
    match &complaints[..] {
        [] => Json(json!({ "ok": true })).into_response(),
        complaints => {
            let body = json!({ "error": complaints.join("; "), "complaints": complaints });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

async fn numbers(State(shown): State<Arc<Shown>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let text = metrics::render(&shown.answer(), shown.handle.silent_for());
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn status(State(shown): State<Arc<Shown>>) -> Response {
    Json(shown.answer()).into_response()
}

async fn shadow(State(shown): State<Arc<Shown>>) -> Response {
    Json(Tried { process: shown.process.clone(), report: shown.handle.shadow() }).into_response()
}

impl Shown {
    fn answer(&self) -> Answer {
        Answer { process: self.process.clone(), status: Status::clone(&self.handle.status()) }
    }
}

async fn only_at_the_socket() -> Response {
    let hint = "on the machine where it runs: weir pause PIPELINE.toml, weir resume PIPELINE.toml";
    refuse(
        StatusCode::FORBIDDEN,
        "this address is only for looking; changes come through the socket",
        Some(hint),
    )
}

/// What records hold is not for everybody on the machine.
async fn not_for_all() -> Response {
    let hint =
        "on the machine where it runs: weir shadow status PIPELINE.toml; how many differ is in /status";
    refuse(StatusCode::FORBIDDEN, "what differs is told at the socket: it shows some records", Some(hint))
}

async fn only_to_read() -> Response {
    let hint = "/pause and /resume are for POST, at the socket; the others are for GET";
    refuse(StatusCode::METHOD_NOT_ALLOWED, "this page is not for that method", Some(hint))
}

async fn unknown(uri: Uri) -> Response {
    let error = format!("there is nothing at {}", uri.path());
    refuse(StatusCode::NOT_FOUND, &error, Some("there is /healthz, /readyz, /metrics and /status"))
}

pub(super) fn refuse(code: StatusCode, error: &str, hint: Option<&str>) -> Response {
    (code, Json(json!({ "error": error, "hint": hint }))).into_response()
}
