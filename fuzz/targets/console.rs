//! The console against a daemon that lies. The input is a list of steps.
#![no_main]

#[path = "../../events/tests/common/mod.rs"]
mod common;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::Fake;
use fata_console::{BACKLOG, Console};
use fata_events::JoinHandle;
use fata_events::xen::XenLoop;
use fata_grant::{ByteLayout, ByteRing};
use fata_hypercall::{Port, SharedPage};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

const PORT: Port = Port(2);
/// Where the page's four indices are.
const INDICES: [usize; 4] = [3072, 3076, 3080, 3084];
/// More turns than any step can cause; whoever needs more goes round in circles.
const MANY: u32 = 10_000;

fuzz_target!(|input: &[u8]| {
    // The input has ended, that is all.
    let _ = run(&mut Unstructured::new(input));
});

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let hv = Fake::with_console(PORT);
    let page: &SharedPage = &hv.0.console.as_ref().expect("a console").0;
    let start = input.arbitrary()?;
    for offset in INDICES {
        page.store_u32(offset, start, Relaxed);
    }
    let mut daemon = ByteRing::attach(ByteLayout::CONSOLE.other_end(), page).expect("equal indices");
    // Time passes while somebody waits for the daemon.
    hv.set_hook(|hv| hv.0.tsc.set(hv.0.tsc.get() + 1_000_000));
    let mut xen = XenLoop::new(hv.clone());
    let console = Console::new(hv.clone(), xen.ports());
    let runner = xen.handle().spawn(console.clone().run());
    let mut readers: Vec<JoinHandle<()>> = Vec::new();
    let shown = Rc::new(RefCell::new(Vec::new()));
    while !input.is_empty() {
        match input.arbitrary::<u8>()? % 8 {
            0 => console.write(text(input)?),
            1 => {
                let (console, shown) = (console.clone(), shown.clone());
                let reader = xen.handle().spawn(async move {
                    if let Ok(line) = console.read_line().await {
                        shown.borrow_mut().push(line);
                    }
                });
                readers.push(reader);
            }
            2 => {
                let console = console.clone();
                let mut room = vec![0; input.arbitrary::<u8>()?.into()];
                let reader = xen.handle().spawn(async move {
                    let _ = console.read(&mut room).await;
                });
                readers.push(reader);
            }
            3 => {
                // It fails when the lies below have reached the daemon's own books.
                let _ = daemon.write(page, text(input)?);
                hv.signal(PORT);
            }
            4 => {
                let mut room = vec![0; usize::from(input.arbitrary::<u8>()?) * 16];
                let _ = daemon.read(page, &mut room);
                hv.signal(PORT);
            }
            5 => {
                let offset = INDICES[usize::from(input.arbitrary::<u8>()? % 4)];
                page.store_u32(offset, input.arbitrary()?, Relaxed);
                hv.signal(PORT);
            }
            6 => {
                console.flush(xen.clock(), Duration::from_millis(20));
            }
            _ => readers.clear(),
        }
        assert!((0..MANY).any(|_| !xen.turn()), "it does not settle");
        assert!(console.stats().backlog <= BACKLOG);
        readers.truncate(8);
    }
    drop(runner);
    Ok(())
}

/// A piece of the input, as long as its first byte says.
fn text<'a>(input: &mut Unstructured<'a>) -> Result<&'a [u8]> {
    let len = usize::from(input.arbitrary::<u8>()?).min(input.len());
    input.bytes(len)
}
