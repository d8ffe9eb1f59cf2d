// Package task runs what takes longer than a request.
//
// A task goes pending → running → succeeded, failed or cancelled; the last
// three are final. Tasks are kept in the store. Those that had not ended when
// the daemon did are failed with QV_ERR_AGAIN when the next one opens the
// store: what they worked on is brought in order by its own service.
package task
