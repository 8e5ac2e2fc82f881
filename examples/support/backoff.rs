//! How long to wait between tries.

use std::time::Duration;

use tokio::time::sleep;

const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(60);

/// Waits that double from try to try. They are spread, so that all who failed together do not come
/// back together.
pub struct Backoff(Duration);

impl Backoff {
    pub fn new() -> Self {
        Self(SHORTEST)
    }

    pub async fn wait(&mut self) {
        let spread = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
        sleep(self.0.mul_f64(0.5 + spread / 2.0)).await;
        self.0 = (self.0 * 2).min(LONGEST);
    }
}
