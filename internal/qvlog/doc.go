// Package qvlog is the log of the product: a log/slog handler that prints one
// line an event,
//
//	[2026-01-15 14:32:01 UTC] [ERROR] storage: QV_STR_ERR_LOCK (-402): message
//
// and keeps the same events as JSON lines in a bounded Ring on the data volume,
// from where "log tail" reads them. Two attributes have a meaning: KeySubsystem
// names the part that speaks, KeyErr carries the error, whose catalogue code
// goes into the line. All others follow as key=value.
package qvlog
