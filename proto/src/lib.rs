//! active-monitor-proto
