//! Answers, and the line that announces them.

use alloc::borrow::Cow;
use alloc::string::{String, ToString};

use crate::request::Request;
use crate::site;

/// The statuses that this server knows (RFC 9110, section 15; RFC 6585).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Status {
    Ok,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    HeadTooLarge,
    ServiceUnavailable,
    VersionNotSupported,
}

impl Status {
    /// The code and its words.
    #[must_use]
    pub fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RequestTimeout => "408 Request Timeout",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::ServiceUnavailable => "503 Service Unavailable",
            Self::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: Status,
    kind: &'static str,
    body: Cow<'static, [u8]>,
    /// HEAD: the length is told, the body is not sent.
    head_only: bool,
    /// Whether the connection stays open.
    pub keep_alive: bool,
}

impl Response {
    /// The answer to `request`. What `/stats` shows is made only when it is asked for.
    pub fn to(request: &Request<'_>, stats: impl FnOnce() -> String) -> Self {
        let mut response = match (request.method, request.path) {
            ("GET" | "HEAD", "/stats") => Self::ok("application/json", Cow::Owned(stats().into_bytes())),
            ("GET" | "HEAD", path) => match site::find(path) {
                Some((kind, body)) => Self::ok(kind, Cow::Borrowed(body)),
                None => Self::error(Status::NotFound),
            },
            _ => Self::error(Status::MethodNotAllowed),
        };
        response.head_only = request.method == "HEAD";
        // A body that nobody reads would be taken for the next request.
        response.keep_alive = request.keep_alive && !request.has_body;
        response
    }

    fn ok(kind: &'static str, body: Cow<'static, [u8]>) -> Self {
        Self {
            status: Status::Ok,
            kind,
            body,
            head_only: false,
            keep_alive: true,
        }
    }

    /// A refusal, after which the connection closes.
    #[must_use]
    pub fn error(status: Status) -> Self {
        let body = Cow::Owned([status.line(), "\n"].concat().into_bytes());
        Self {
            status,
            kind: "text/plain",
            body,
            head_only: false,
            keep_alive: false,
        }
    }

    /// The status line and the header fields, with the empty line that ends them.
    #[must_use]
    pub fn head(&self) -> String {
        let extra = match self.status {
            Status::MethodNotAllowed => "\r\nAllow: GET, HEAD",
            Status::ServiceUnavailable => "\r\nRetry-After: 1",
            _ => "",
        };
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        [
            "HTTP/1.1 ",
            self.status.line(),
            "\r\nServer: fata\r\nContent-Type: ",
            self.kind,
            "\r\nContent-Length: ",
            &self.body.len().to_string(),
            extra,
            "\r\nConnection: ",
            connection,
            "\r\n\r\n",
        ]
        .concat()
    }

    /// The bytes after the head.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        if self.head_only { &[] } else { &self.body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(method: &str, path: &str) -> Response {
        let request = Request {
            method,
            path,
            keep_alive: true,
            has_body: false,
        };
        Response::to(&request, || "{}".to_string())
    }

    #[test]
    fn a_page() {
        let response = answer("GET", "/");
        let head = response.head();
        assert!(
            head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"),
            "{head}"
        );
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", response.body().len())));
        assert!(head.contains("\r\nContent-Type: text/html; charset=utf-8\r\n"));
        assert!(response.body().starts_with(b"<!doctype html>"));
    }

    #[test]
    fn head_tells_the_length_and_sends_nothing() {
        assert_eq!(answer("HEAD", "/").head(), answer("GET", "/").head());
        assert!(answer("HEAD", "/").body().is_empty());
        assert!(answer("HEAD", "/none").head().starts_with("HTTP/1.1 404 "));
    }

    #[test]
    fn refusals() {
        assert!(answer("GET", "/none").head().starts_with("HTTP/1.1 404 Not Found\r\n"));
        assert!(answer("GET", "/none").keep_alive);
        let refused = answer("DELETE", "/").head();
        assert!(
            refused.starts_with("HTTP/1.1 405 ") && refused.contains("\r\nAllow: GET, HEAD\r\n"),
            "{refused}"
        );
        assert!(
            Response::error(Status::BadRequest)
                .head()
                .contains("\r\nConnection: close\r\n")
        );
    }

    #[test]
    fn stats_are_json_and_made_when_asked_for() {
        let response = answer("GET", "/stats");
        assert!(response.head().contains("Content-Type: application/json"));
        assert_eq!(response.body(), b"{}");
        let request = Request {
            method: "GET",
            path: "/",
            keep_alive: true,
            has_body: false,
        };
        Response::to(&request, || unreachable!("nobody asked"));
    }

    #[test]
    fn a_body_ends_the_connection() {
        let request = Request {
            method: "GET",
            path: "/",
            keep_alive: true,
            has_body: true,
        };
        assert!(!Response::to(&request, String::new).keep_alive);
    }
}
