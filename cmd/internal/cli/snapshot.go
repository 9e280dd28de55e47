package cli

import (
	"fmt"
	"time"

	"github.com/bk-backup/bk/format"
)

// TimeText prints a moment in local time for people; "" where it is unknown.
func TimeText(t *format.Time) string {
	if t == nil {
		return ""
	}
	if !t.Printable() {
		return fmt.Sprintf("@%d", t.Sec)
	}
	return t.Time().Local().Format("2006-01-02 15:04:05")
}

// TimeJSON prints a moment in RFC 3339, or as seconds since 1970 where that
// cannot say it.
func TimeJSON(t format.Time) string {
	if !t.Printable() {
		return fmt.Sprintf("@%d.%09d", t.Sec, t.Nsec)
	}
	return t.Time().Format(time.RFC3339Nano)
}

// SnapshotJSON is a snapshot as --json prints it.
func SnapshotJSON(s *format.Snapshot) map[string]any {
	object := map[string]any{"id": s.ID.String()}
	if s.Time != nil {
		object["time"] = TimeJSON(*s.Time)
	}
	for key, text := range map[string]string{"host": s.Host, "user": s.User, "comment": s.Comment} {
		if text != "" {
			JSONName(object, key, text)
		}
	}
	object["tags"] = append([]string{}, s.Tags...)
	roots := make([]any, len(s.Roots))
	for i, r := range s.Roots {
		name := map[string]any{}
		JSONName(name, "path", "/"+r)
		roots[i] = name
	}
	object["roots"] = roots
	if s.Estimate != nil {
		object["entries"], object["bytes"] = s.Estimate.Entries, s.Estimate.Bytes
	}
	if o := s.Origin; o != nil {
		object["origin"] = map[string]any{"system": o.System, "repository": fmt.Sprintf("%x", o.Repository), "id": fmt.Sprintf("%x", o.ID)}
	}
	via := make([]map[string]any, 0, len(s.Via))
	for _, v := range s.Via {
		via = append(via, map[string]any{"stage": v.Stage, "from": v.From.String()})
	}
	if len(via) > 0 {
		object["via"] = via
	}
	return object
}
