package cli

import (
	"errors"
	"fmt"

	"github.com/wasmatrix/wasmatrix/logging"
)

// newLog returns what the node logs with, on stderr.
func newLog(s *settings) (*logging.Log, error) {
	level, err := logging.ParseLevel(s.String("log-level"))
	if err != nil {
		err = fmt.Errorf("--log-level %w", err)
	}
	log, wrongFormat := logging.New(logging.Config{Level: level, Format: s.String("log-format"), Out: s.App.ErrWriter})
	if wrongFormat != nil {
		wrongFormat = fmt.Errorf("--log-format %w", wrongFormat)
	}
	return log, errors.Join(err, wrongFormat)
}
