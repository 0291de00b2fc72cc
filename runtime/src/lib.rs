//! active-monitor-runtime
