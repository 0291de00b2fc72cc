//! schedule: times that robfig/cron v3, the library behind active-monitor, gives too.

use active_monitor_cli::Exit;

use crate::run;

fn times(args: &[&str]) -> Vec<String> {
    let ran = run(&[&["schedule"], args].concat(), "");
    assert_eq!((ran.exit, ran.err.as_str()), (Exit::Fine, ""), "{ran:?}");
    ran.out.lines().map(str::to_owned).collect()
}

#[test]
fn times_come_after_the_present_or_the_given_one() {
    assert_eq!(times(&["@hourly", "--count", "2"]), ["2026-03-01T13:00:00Z", "2026-03-01T14:00:00Z"]);
    let from = ["*/15 9-10 * * MON-FRI", "--from", "2026-01-02T10:30:00Z", "--count", "3"];
    assert_eq!(times(&from), ["2026-01-02T10:45:00Z", "2026-01-05T09:00:00Z", "2026-01-05T09:15:00Z"]);
    assert_eq!(times(&["@every 1h30m", "--count", "2"]), ["2026-03-01T13:30:00Z", "2026-03-01T15:00:00Z"]);
    assert_eq!(times(&["@daily"]).len(), 5);
}

#[test]
fn both_day_fields_restricted_mean_either() {
    let args = ["0 0 13 * FRI", "--from", "2026-03-01T00:00:00Z", "--count", "3"];
    assert_eq!(times(&args), ["2026-03-06T00:00:00Z", "2026-03-13T00:00:00Z", "2026-03-20T00:00:00Z"]);
}

#[test]
fn a_zone_is_that_of_the_answer() {
    // Berlin's clock goes from 02:00 to 03:00 on 29 March 2026: the gap is skipped.
    let args = ["30 2 * * *", "--tz", "Europe/Berlin", "--from", "2026-03-28T00:00:00Z", "--count", "2"];
    let expected = ["2026-03-28T02:30:00+01:00", "2026-03-30T02:30:00+02:00"];
    assert_eq!(times(&args), expected);
    let own = ["CRON_TZ=Europe/Berlin 30 2 * * *", "--from", "2026-03-28T00:00:00Z", "--count", "2"];
    assert_eq!(times(&own), expected);
    // On 25 October the hour from 02:00 comes twice.
    let args = ["30 2 25 10 *", "--tz", "Europe/Berlin", "--from", "2026-10-24T00:00:00Z", "--count", "2"];
    assert_eq!(times(&args), ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]);
}

#[test]
fn what_is_wrong_is_said() {
    for (args, says) in [
        (&["61 * * * *"][..], "error: \"61 * * * *\" is no schedule: minute"),
        (&["* * * *"], "4 fields where exactly 5 are needed"),
        (&["@daily", "--tz", "Mars/Olympus"], "Mars/Olympus"),
        (&["TZ=UTC @daily", "--tz", "UTC"], "not both"),
    ] {
        let ran = run(&[&["schedule"], args].concat(), "");
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Error, ""), "{args:?}");
        assert!(ran.err.contains(says), "{args:?}: {}", ran.err);
    }
    let never = run(&["schedule", "0 0 30 2 *"], "");
    assert_eq!((never.exit, never.out.as_str()), (Exit::Found, ""));
    assert!(never.err.contains("no more often"), "{}", never.err);
}

#[test]
fn times_as_data_are_a_list() {
    let ran = run(&["schedule", "@hourly", "--count", "1", "-o", "json"], "");
    assert_eq!(serde_json::from_str::<Vec<String>>(&ran.out).unwrap(), ["2026-03-01T13:00:00Z"]);
}
