//! QEMU's control socket: JSON commands and answers, one per line (qemu: docs/interop/qmp-spec.rst).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::Error;

/// How long QEMU may take for an answer; a snapshot is written in the background, so all are quick.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection that has left the negotiation behind.
#[derive(Debug)]
pub(crate) struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    /// Connects to the socket; `None` while it does not exist.
    pub(crate) fn connect(path: &Path) -> Result<Option<Self>, Error> {
        let Ok(stream) = UnixStream::connect(path) else {
            return Ok(None);
        };
        stream
            .set_read_timeout(Some(LIMIT))
            .map_err(Error::io("talk to", path))?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
        };
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(Some(qmp))
    }

    /// Executes a command and returns its result.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Error> {
        let broken = |source| Error::Agent {
            what: format!("QEMU's command {command}"),
            source,
        };
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.reader.get_mut().write_all(line.as_bytes()).map_err(broken)?;
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).map_err(broken)? == 0 {
                return Err(broken(std::io::ErrorKind::UnexpectedEof.into()));
            }
            if let Some(answer) = answer(&line) {
                return answer.map_err(|answer| Error::Qmp {
                    command: command.to_owned(),
                    answer,
                });
            }
        }
    }

    /// Executes a command of the human monitor, which prints its result, or an error.
    pub(crate) fn human(&mut self, line: &str) -> Result<String, Error> {
        let text = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// The field "status" of `query-status` or `query-migrate`.
    pub(crate) fn status(&mut self, query: &str) -> Result<String, Error> {
        let answer = self.execute(query, json!({}))?;
        Ok(answer
            .get("status")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned())
    }
}

/// The result in a line; `None` for greetings and events.
fn answer(line: &str) -> Option<Result<Value, String>> {
    let mut message: Value = serde_json::from_str(line).ok()?;
    if let Some(error) = message.get("error") {
        let text = error.get("desc").and_then(Value::as_str);
        return Some(Err(text.map_or_else(|| error.to_string(), str::to_owned)));
    }
    message.get_mut("return").map(|value| Ok(value.take()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_answers_from_events() {
        assert_eq!(answer(r#"{"QMP": {"version": {}}}"#), None);
        assert_eq!(answer(r#"{"event": "STOP", "timestamp": {}}"#), None);
        assert_eq!(answer("garbage"), None);
        assert_eq!(
            answer(r#"{"return": {"status": "running"}}"#),
            Some(Ok(json!({ "status": "running" })))
        );
        assert_eq!(
            answer(r#"{"error": {"class": "x", "desc": "no"}}"#),
            Some(Err("no".into()))
        );
    }
}
