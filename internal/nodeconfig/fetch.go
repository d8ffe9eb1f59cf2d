package nodeconfig

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"quantavirt/internal/qverr"
)

// Times of a fetch.
const (
	tryLimit   = 20 * time.Second
	firstPause = time.Second
	lastPause  = 15 * time.Second
)

// errFinal marks an answer that will not change by asking again.
var errFinal = errors.New("the server has answered")

// Fetch gets a document by HTTP, and tries until ctx ends while the network or
// the server is not there yet. An answer of the kind 4xx is final: QV_ERR_NOENT
// for 404, as the server has none for this machine; QV_ERR_CONFIG for the rest
// and for what is larger than MaxSize.
func Fetch(ctx context.Context, log *slog.Logger, url string) (*Found, error) {
	if err := CheckURL(url); err != nil {
		return nil, qverr.New(qverr.Config, "quantavirt.config=%.200s: %w", url, err).With("path", "")
	}
	pause := firstPause
	for {
		data, err := get(ctx, url)
		if err == nil {
			return &Found{Source: FromURL, Place: url, Data: data}, nil
		}
		if errors.Is(err, errFinal) {
			return nil, err
		}
		log.Info("the configuration is not there yet", "url", url, "err", err)
		select {
		case <-ctx.Done():
			return nil, qverr.New(qverr.Timeout, "fetch the configuration %s: %w", url, err).
				WithHint("check the network and the server; the node goes on without its configuration")
		case <-time.After(pause):
			pause = min(2*pause, lastPause)
		}
	}
}

func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil, qverr.New(qverr.NoEnt, "%s: %w: it has no configuration for this machine", url, errFinal)
	case resp.StatusCode >= 400 && resp.StatusCode < 500:
		return nil, qverr.New(qverr.Config, "%s: %w: %s", url, errFinal, resp.Status).With("path", "")
	case resp.StatusCode != http.StatusOK:
		return nil, errors.New(resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, MaxSize+1))
	if err == nil && len(data) > MaxSize {
		return nil, qverr.New(qverr.Config, "%s: %w: more than %d bytes", url, errFinal, MaxSize).With("path", "")
	}
	return data, err
}
