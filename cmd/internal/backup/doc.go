// Package backup is what bk-backup does: a scan of the file system into a
// repository or a stream. Start at Backup. Only that program imports it.
package backup
