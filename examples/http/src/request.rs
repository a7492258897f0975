//! From bytes to a request (RFC 9110, RFC 9112). The parser is the crate `httparse`.

use crate::response::Status;

/// Bytes that a request's head may have.
pub const MAX_HEAD: usize = 4096;

/// Header fields that it may have.
const MAX_HEADERS: usize = 48;

/// What the server needs to know of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// `GET`, `HEAD`, ...; case matters.
    pub method: &'a str,
    /// The path, without query and without the host that a proxy's request names.
    pub path: &'a str,
    /// Whether the client wants to go on after this one.
    pub keep_alive: bool,
    /// Whether a body follows the head. Nothing here takes one.
    pub has_body: bool,
}

/// Looks for a request at the beginning of `bytes`; `None` if it is not complete yet. With it comes its length.
///
/// # Errors
/// The status to refuse it with.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request<'_>, usize)>, Status> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(Status::HeadTooLarge),
        Err(httparse::Error::Version) => return Err(Status::VersionNotSupported),
        Err(_) => return Err(Status::BadRequest),
    };
    let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Status::BadRequest);
    };
    let mut request = Request {
        method,
        path: path(target),
        keep_alive: version > 0,
        has_body: false,
    };
    let mut hosts = 0;
    for header in parsed.headers.iter() {
        let name = |name: &str| header.name.eq_ignore_ascii_case(name);
        let has = |token| has_token(header.value, token);
        if name("host") {
            hosts += 1;
        } else if name("content-length") {
            let digits = !header.value.is_empty() && header.value.iter().all(u8::is_ascii_digit);
            if !digits {
                return Err(Status::BadRequest);
            }
            request.has_body |= header.value.iter().any(|&digit| digit != b'0');
        } else if name("transfer-encoding") {
            request.has_body = true;
        } else if name("connection") {
            request.keep_alive = (request.keep_alive || has("keep-alive")) && !has("close");
        }
    }
    // RFC 9112, section 3.2: exactly one host in HTTP/1.1, and never more.
    if hosts > 1 || (hosts == 0 && version > 0) {
        return Err(Status::BadRequest);
    }
    Ok(Some((request, length)))
}

/// `/a` of `/a?b=c` and of `http://host/a`.
fn path(target: &str) -> &str {
    let absolute = target
        .split_once(':')
        .and_then(|(scheme, rest)| Some((scheme, rest.strip_prefix("//")?)));
    let path = match absolute {
        Some((scheme, rest)) if !scheme.contains('/') => rest
            .find(['/', '?'])
            .and_then(|start| rest.get(start..))
            .unwrap_or_default(),
        _ => target,
    };
    match path.split_once('?').map_or(path, |(path, _)| path) {
        "" => "/",
        path => path,
    }
}

/// Whether a list such as `keep-alive, upgrade` has `token`.
fn has_token(value: &[u8], token: &str) -> bool {
    value
        .split(|&byte| byte == b',')
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOST: &str = "Host: a\r\n\r\n";

    fn one(head: &str) -> Request<'_> {
        let (request, length) = parse(head.as_bytes()).unwrap().expect("complete");
        assert_eq!(length, head.len());
        request
    }

    #[test]
    fn a_request_in_pieces() {
        let head = format!("GET /style.css HTTP/1.1\r\n{HOST}");
        for end in 0..head.len() {
            assert_eq!(parse(&head.as_bytes()[..end]), Ok(None), "{end}");
        }
        let request = one(&head);
        assert_eq!(
            request,
            Request {
                method: "GET",
                path: "/style.css",
                keep_alive: true,
                has_body: false
            }
        );
        let two = format!("{head}{head}");
        assert_eq!(
            parse(two.as_bytes()).unwrap().unwrap().1,
            head.len(),
            "the next one stays"
        );
    }

    #[test]
    fn targets() {
        for (target, path) in [
            ("/", "/"),
            ("/a?b=c", "/a"),
            ("/?a://b", "/"),
            ("http://host/a?b", "/a"),
            ("http://host", "/"),
            ("http://host?q", "/"),
            ("*", "*"),
        ] {
            assert_eq!(one(&format!("GET {target} HTTP/1.1\r\n{HOST}")).path, path, "{target}");
        }
    }

    #[test]
    fn keeping_alive() {
        for (version, connection, keep) in [
            ("1.1", "", true),
            ("1.1", "Connection: close\r\n", false),
            ("1.1", "connection: Foo, CLOSE\r\n", false),
            ("1.0", "", false),
            ("1.0", "Connection: keep-alive\r\n", true),
            ("1.0", "Connection: keep-alive, close\r\n", false),
        ] {
            let request = format!("GET / HTTP/{version}\r\n{connection}{HOST}");
            assert_eq!(one(&request).keep_alive, keep, "{request}");
        }
    }

    #[test]
    fn bodies_are_seen() {
        let has = |line: &str| one(&format!("POST / HTTP/1.1\r\n{line}\r\n{HOST}")).has_body;
        assert!(has("Content-Length: 5"));
        assert!(!has("Content-Length: 0"));
        assert!(has("Transfer-Encoding: chunked"));
    }

    #[test]
    fn refused() {
        let bad = |head: &str| parse(head.as_bytes()).unwrap_err();
        assert_eq!(bad("\u{16}\u{3}\u{1}"), Status::BadRequest, "TLS on the wrong port");
        assert_eq!(bad("GET / HTTP/1.1\r\n\r\n"), Status::BadRequest, "no host");
        assert_eq!(
            bad(&format!("GET / HTTP/1.1\r\nHost: b\r\n{HOST}")),
            Status::BadRequest,
            "two hosts"
        );
        assert_eq!(
            bad(&format!("GET / HTTP/1.1\r\nContent-Length: -1\r\n{HOST}")),
            Status::BadRequest
        );
        assert_eq!(
            bad(&format!("GET / HTTP/1.1\r\nContent-Length: \r\n{HOST}")),
            Status::BadRequest
        );
        assert_eq!(bad(&format!("GET / HTTP/1.1\r\na b: c\r\n{HOST}")), Status::BadRequest);
        assert_eq!(bad(&format!("GET / HTTP/2.0\r\n{HOST}")), Status::VersionNotSupported);
        assert_eq!(bad(&format!("GET /{}", "a".repeat(MAX_HEAD))), Status::HeadTooLarge);
        assert_eq!(
            bad(&format!("GET / HTTP/1.1\r\n{}{HOST}", "a: b\r\n".repeat(99))),
            Status::HeadTooLarge
        );
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn near_misses_do_not_panic(head in "(GET|POST) [/:?a]{0,8} HTTP/1.[0-9]\r\n((Host|Content-Length|Connection): ?[0-9a-z,]{0,4}\r\n){0,3}\r\n") {
            if let Ok(Some((request, length))) = parse(head.as_bytes()) {
                prop_assert!(length <= head.len());
                prop_assert!(!request.path.is_empty());
            }
        }
    }
}
