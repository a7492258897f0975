//! How a program ends.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use core::convert::Infallible;
use core::error::Error;
use core::fmt;

/// The program's result, as in `std::process`: 0 is success.
///
/// It is shown on the console (`fata: exit status 3`) and left in the domain's xenstore at `data/fata/exit-status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitCode(pub u8);

impl ExitCode {
    /// The program did what it should.
    pub const SUCCESS: Self = Self(0);
    /// It did not.
    pub const FAILURE: Self = Self(1);
    /// It was called with arguments that it cannot use.
    pub const USAGE: Self = Self(2);
}

/// An error that chooses the program's exit code.
///
/// ```
/// use fata::{ExitCode, Failure};
/// async fn check(temperature: i32) -> Result<(), Failure> {
///     if temperature > 100 {
///         return Err(Failure::new(ExitCode(7), "too hot"));
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    code: ExitCode,
    message: String,
}

impl Failure {
    /// Ends the program with `code` after `message` was printed.
    #[must_use]
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

/// What is left of a program: its code, and the error to be printed.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code.
    pub code: ExitCode,
    /// The error and what it came from, one line each.
    pub error: Option<String>,
}

/// What `main` may return.
pub trait Termination {
    /// The value as exit code and message.
    fn outcome(self) -> Outcome;
}

impl Termination for () {
    fn outcome(self) -> Outcome {
        ExitCode::SUCCESS.outcome()
    }
}

impl Termination for Infallible {
    fn outcome(self) -> Outcome {
        match self {}
    }
}

impl Termination for ExitCode {
    fn outcome(self) -> Outcome {
        Outcome {
            code: self,
            error: None,
        }
    }
}

impl<T: Termination, E: Into<Box<dyn Error>>> Termination for Result<T, E> {
    fn outcome(self) -> Outcome {
        match self {
            Ok(value) => value.outcome(),
            Err(error) => failed(&*error.into()),
        }
    }
}

/// Finds the code in an error, and writes it down with its causes.
fn failed(error: &(dyn Error + 'static)) -> Outcome {
    /// A chain of causes ends here, should it be a circle.
    const CAUSES: usize = 8;
    let mut code = ExitCode::FAILURE;
    let mut text = error.to_string();
    let mut cause = Some(error);
    for depth in 0..CAUSES {
        let Some(error) = cause else { break };
        if let Some(failure) = error.downcast_ref::<Failure>() {
            code = failure.code;
        }
        if depth > 0 {
            text.push_str("\n  because: ");
            text.push_str(&error.to_string());
        }
        cause = error.source();
    }
    Outcome {
        code,
        error: Some(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(Failure);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")
        }
    }
    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    fn check(value: impl Termination, code: u8, error: Option<&str>) {
        let outcome = value.outcome();
        assert_eq!((outcome.code, outcome.error.as_deref()), (ExitCode(code), error));
    }

    #[test]
    fn what_main_may_return() {
        check((), 0, None);
        check(ExitCode(3), 3, None);
        check(Ok::<_, Failure>(()), 0, None);
        check(Ok::<_, Failure>(ExitCode(9)), 9, None);
        check(Err::<(), _>("broken"), 1, Some("broken"));
        check(Err::<(), _>(Box::<dyn Error>::from("boxed")), 1, Some("boxed"));
        check(Err::<(), _>(core::fmt::Error), 1, Some(&core::fmt::Error.to_string()));
        check(Err::<(), _>(Failure::new(ExitCode(7), "hot")), 7, Some("hot"));
    }

    #[test]
    fn a_cause_can_choose_the_code() {
        let error = Outer(Failure::new(ExitCode(7), "hot"));
        check(Err::<(), _>(error), 7, Some("outer\n  because: hot"));
    }
}
