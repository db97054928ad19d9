//! What candle has to be told about threads before it is used.
//!
//! Unless a variable says how many there are, candle looks them up in `/proc/cpuinfo` at every
//! matrix product, and its elementwise operations share one pool that only one caller may use at a
//! time. Work is spread over contexts here, so such an operation does best on the thread that asks.
//! Neither changes a result.

/// Sets both variables where the user has not.
///
/// # Safety
/// No other thread may run yet: the environment is the process's.
pub unsafe fn settle() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    for (name, threads) in [("RAYON_NUM_THREADS", cores), ("CANDLE_NUM_THREADS", 1)] {
        if std::env::var_os(name).is_none() {
            // SAFETY: the caller's promise.
            unsafe { std::env::set_var(name, threads.to_string()) };
        }
    }
}
