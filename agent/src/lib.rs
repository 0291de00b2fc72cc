//! active-monitor-agent
