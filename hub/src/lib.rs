//! active-monitor-hub
