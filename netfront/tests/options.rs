//! How much memory an interface shares with its backend.

use fata_netfront::Options;

/// What the documentation of `for_memory` says, at both ends of each range.
#[test]
fn an_interface_takes_its_share_of_memory() {
    let (mib, page) = (1 << 20, 4096);
    let cases = [
        (0, (64, 0, 0), 384),
        (4 * mib - 1, (64, 0, 0), 384),
        (4 * mib, (64, 4, 16_384), 448),
        (12 * mib - 1, (64, 4, 16_384), 448),
        (12 * mib, (128, 6, 32_768), 832),
        (48 * mib - 1, (128, 6, 32_768), 832),
        (48 * mib, (256, 8, 65_535), 1664),
        (usize::MAX, (256, 8, 65_535), 1664),
    ];
    for (bytes, expected, kib) in cases {
        let options = Options::for_memory(bytes);
        assert_eq!(
            (options.rx_buffers, options.segment_buffers, options.segment_buffer),
            expected,
            "{bytes} bytes"
        );
        let segments =
            usize::from(options.segment_buffers) * usize::from(options.segment_buffer).next_multiple_of(page);
        let shared = usize::from(options.rx_buffers) * page + usize::from(options.tx_buffers) * page / 2 + segments;
        assert_eq!(shared, kib << 10, "{bytes} bytes");
    }
}
