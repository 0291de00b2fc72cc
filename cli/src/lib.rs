//! active-monitor-cli
