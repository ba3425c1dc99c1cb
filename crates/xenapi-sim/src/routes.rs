//! What is answered beside RPC: disks, VM images, metrics, consoles.

use std::io;
use std::pin::Pin;

use tokio::io::AsyncWriteExt;

use crate::disk::{transfer, vm_image};
use crate::guest::console;
use crate::http::{Answer, Credentials, Exchange};
use crate::metrics;
use crate::sessions;
use crate::value::Ref;

/// What answers a request; the connection ends with it.
pub(crate) type RouteHandler = fn(Exchange) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// A verb and a path that a handler answers.
pub(crate) struct Route {
    verb: &'static str,
    path: &'static str,
    handler: RouteHandler,
}

/// All handlers. What is not here yet is answered 403, as by a server without the handler.
const ROUTES: &[Route] = &[
    Route {
        verb: "PUT",
        path: "/import_raw_vdi",
        handler: |exchange| Box::pin(transfer::import_raw_vdi(exchange)),
    },
    Route {
        verb: "GET",
        path: "/export_raw_vdi",
        handler: |exchange| Box::pin(transfer::export_raw_vdi(exchange)),
    },
    Route {
        verb: "PUT",
        path: "/import",
        handler: |exchange| Box::pin(vm_image::import(exchange)),
    },
    Route {
        verb: "GET",
        path: "/export",
        handler: |exchange| Box::pin(vm_image::export(exchange)),
    },
    Route {
        verb: "CONNECT",
        path: "/console",
        handler: |exchange| Box::pin(console::console(exchange)),
    },
    Route {
        verb: "GET",
        path: "/rrd_updates",
        handler: |exchange| Box::pin(metrics::rrd_updates(exchange)),
    },
    Route {
        verb: "GET",
        path: "/vm_rrd",
        handler: |exchange| Box::pin(metrics::archive::vm_rrd(exchange)),
    },
    Route {
        verb: "GET",
        path: "/host_rrd",
        handler: |exchange| Box::pin(metrics::archive::host_rrd(exchange)),
    },
];

/// The handler for this verb and path.
pub(crate) fn find(verb: &str, path: &str) -> Option<RouteHandler> {
    let route = ROUTES.iter().find(|route| route.verb == verb && route.path == path);
    route.map(|route| route.handler)
}

impl Exchange {
    /// The session that the request acts for. Without one the request is answered 401 here.
    pub(crate) async fn session(&mut self) -> io::Result<Option<Ref>> {
        let session = match Credentials::of(&self.head) {
            Credentials::Session(text) => sessions::check(&self.inner, &text),
            Credentials::Basic(name, password) => {
                sessions::login(&self.inner, self.host, &name, &password, "http")
            }
            Credentials::None => Err(crate::error::bare("SESSION_AUTHENTICATION_FAILED")),
        };
        match session {
            Ok(session) => Ok(Some(session)),
            Err(error) => {
                if let Some(task) = self.head.query("task_id").and_then(Ref::parse) {
                    crate::tasks::finish(&self.inner, task, &Err(error));
                }
                let answer = Answer::html(401, "Unauthorized", "A session is needed.");
                self.answer(&answer.with("WWW-Authenticate", "Basic realm=\"XenAPI\"")).await?;
                Ok(None)
            }
        }
    }

    /// Answers, and ends the connection.
    pub(crate) async fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        self.stream.write_all(&answer.bytes(false, self.head.modern)).await?;
        self.stream.shutdown().await
    }
}
