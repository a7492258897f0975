//! The site, compiled in.

/// Path, media type and content.
const FILES: &[(&str, &str, &[u8])] = &[
    ("/", "text/html; charset=utf-8", include_bytes!("../site/index.html")),
    (
        "/style.css",
        "text/css; charset=utf-8",
        include_bytes!("../site/style.css"),
    ),
    ("/favicon.svg", "image/svg+xml", include_bytes!("../site/favicon.svg")),
];

/// The media type and the content of the file at `path`.
#[must_use]
pub fn find(path: &str) -> Option<(&'static str, &'static [u8])> {
    let path = if path == "/index.html" { "/" } else { path };
    FILES
        .iter()
        .find(|file| file.0 == path)
        .map(|&(_, kind, content)| (kind, content))
}
