package kv

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/gomodule/redigo/redis"

	"github.com/wasmatrix/wasmatrix/capability"
	"github.com/wasmatrix/wasmatrix/capability/kv/decimal"
)

// redisEngine keeps each key of a bucket as a hash {v: value, r: revision}, which redis expires. Beside them
// each bucket has a sorted set of its keys, since redis lists nothing in order; one of the times at which keys expire, so
// that they leave the first one too; and a number that revisions are taken from. Each call is one script, and so
// one step. All of a bucket has one hash tag, so that a redis cluster keeps it in one place.
type redisEngine struct {
	pool   *redis.Pool
	prefix string
}

const (
	// How many connections are open at once, and kept while nobody needs them. Further calls wait for one.
	redisConns, redisIdle = 64, 8
	// A connection that nobody has used for so long is tried before it is used, and closed after the second.
	redisTry, redisKeep = time.Second, 5 * time.Minute
)

func openRedis(cfg Config, b backend) (Engine, error) {
	db, err := b.db()
	if err != nil {
		return nil, err
	}
	options := []redis.DialOption{redis.DialDatabase(db), redis.DialUsername(b.user), redis.DialPassword(b.password)}
	if b.scheme == "rediss" {
		options = append(options, redis.DialUseTLS(true), redis.DialTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12}))
	}
	pool := &redis.Pool{
		MaxActive: redisConns, Wait: true, MaxIdle: redisIdle, IdleTimeout: redisKeep,
		DialContext: func(ctx context.Context) (redis.Conn, error) {
			return redis.DialContext(ctx, "tcp", b.hosts[0], options...)
		},
		TestOnBorrowContext: func(ctx context.Context, c redis.Conn, last time.Time) error {
			if time.Since(last) < redisTry {
				return nil
			}
			_, err := redis.DoContext(c, ctx, "PING")
			return err
		},
	}
	return &redisEngine{pool: pool, prefix: "wasmatrix:{" + escape(cfg.ProviderID, '%', "-._") + ":"}, nil
}

// redisHead is what the scripts have in common. KEYS are the key's hash, the bucket's keys, its times and its number;
// ARGV are the key, and what all hashes of the bucket begin with.
const redisHead = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, key in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 16)) do
	if redis.call('EXISTS', ARGV[2] .. key) == 0 then
		redis.call('ZREM', KEYS[2], key)
		redis.call('ZREM', KEYS[3], key)
	end -- of one that has expired
end
`

// redisKeys is how many KEYS each script has.
const redisKeys = 4

var (
	// ARGV: value, milliseconds to live or 0, revision or nothing.
	redisSet = redis.NewScript(redisKeys, redisHead+`
local old = redis.call('HGET', KEYS[1], 'r') or '0'
if ARGV[5] ~= '' and ARGV[5] ~= old then return {'conflict', old} end
local revision = string.format('%.0f', redis.call('INCR', KEYS[4]))
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'v', ARGV[3], 'r', revision)
redis.call('ZADD', KEYS[2], 0, ARGV[1])
if ARGV[4] == '0' then
	redis.call('ZREM', KEYS[3], ARGV[1])
else
	redis.call('PEXPIRE', KEYS[1], ARGV[4])
	redis.call('ZADD', KEYS[3], now + tonumber(ARGV[4]), ARGV[1])
end
return {'done', revision}`)

	// ARGV: revision or nothing.
	redisDelete = redis.NewScript(redisKeys, redisHead+`
local old = redis.call('HGET', KEYS[1], 'r') or '0'
if ARGV[3] ~= '' and ARGV[3] ~= old then return {'conflict', old} end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return {'done', old}`)

	// ARGV: what to add. A number of a script has 53 bits, so the sum is read as text.
	redisIncrement = redis.NewScript(redisKeys, redisHead+`
local sum = redis.pcall('HINCRBY', KEYS[1], 'v', ARGV[3])
if type(sum) == 'table' and sum.err then
	if string.find(sum.err, 'overflow', 1, true) then return {'overflow', '0'} end
	if string.find(sum.err, 'not an integer', 1, true) then return {'number', '0'} end
	return sum
end
redis.call('HSET', KEYS[1], 'r', string.format('%.0f', redis.call('INCR', KEYS[4])))
redis.call('ZADD', KEYS[2], 0, ARGV[1])
return {'done', redis.call('HGET', KEYS[1], 'v')}`)

	// ARGV: where to begin, the first key behind the prefix or nothing, and how many keys are wanted.
	redisList = redis.NewScript(redisKeys, redisHead+`
local start, wanted, keys = ARGV[3], tonumber(ARGV[5]), {}
while true do
	local some = redis.call('ZRANGEBYLEX', KEYS[2], start, ARGV[4], 'LIMIT', 0, wanted)
	for _, key in ipairs(some) do
		if redis.call('EXISTS', ARGV[2] .. key) == 1 then keys[#keys + 1] = key end -- others have expired
	end
	if #keys >= wanted or #some < wanted then return keys end
	start = '(' .. some[#some]
end`)
)

func (e *redisEngine) keys(bucket, key string) []string {
	b := e.prefix + escape(bucket, '%', "-._") + "}:"
	return []string{b + "k:" + key, b + "keys", b + "times", b + "last"}
}

// eval runs a script and returns its answer.
func (e *redisEngine) eval(ctx context.Context, script *redis.Script, keys []string, args []any) ([]string, error) {
	conn, err := e.pool.GetContext(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	all := make([]any, 0, len(keys)+len(args))
	for _, k := range keys {
		all = append(all, k)
	}
	return redis.Strings(script.DoContext(ctx, conn, append(all, args...)...))
}

func (e *redisEngine) do(ctx context.Context, command string, args ...any) (any, error) {
	conn, err := e.pool.GetContext(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return redis.DoContext(conn, ctx, command, args...)
}

// run runs a script and returns its word and its number.
func (e *redisEngine) run(ctx context.Context, script *redis.Script, bucket, key string, args ...any) (string, error) {
	keys := e.keys(bucket, key)
	answer, err := e.eval(ctx, script, keys, append([]any{key, keys[0][:len(keys[0])-len(key)]}, args...))
	switch {
	case err != nil:
		return "", err
	case len(answer) != 2:
		return "", fmt.Errorf("redis answers a script with %d values", len(answer))
	}
	switch answer[0] {
	case "done":
		return answer[1], nil
	case "conflict":
		n, err := strconv.ParseUint(answer[1], 10, 64)
		if err != nil {
			return "", err
		}
		return "", conflict(n)
	case "number":
		return "", capability.Errorf(capability.InvalidRequest, "%w", decimal.ErrNotNumber)
	case "overflow":
		return "", capability.Errorf(capability.InvalidRequest, "%w", decimal.ErrOverflow)
	}
	return "", fmt.Errorf("redis answers a script with %q", answer[0])
}

// Check asks redis whether it is there.
func (e *redisEngine) Check(ctx context.Context) error {
	_, err := e.do(ctx, "PING")
	return err
}

// Close ends the connections.
func (e *redisEngine) Close() error { return e.pool.Close() }

// Get reads a key.
func (e *redisEngine) Get(ctx context.Context, bucket, key string) (capability.Entry, error) {
	got, err := redis.ByteSlices(e.do(ctx, "HMGET", e.keys(bucket, key)[0], "v", "r"))
	switch {
	case err != nil:
		return capability.Entry{}, err
	case len(got) != 2:
		return capability.Entry{}, fmt.Errorf("redis answers HMGET with %d values", len(got))
	case got[1] == nil:
		return capability.Entry{}, notFound(bucket, key)
	}
	n, err := strconv.ParseUint(string(got[1]), 10, 64)
	return capability.Entry{Value: got[0], Revision: n}, err
}

// Exists says whether there is a key.
func (e *redisEngine) Exists(ctx context.Context, bucket, key string) (uint64, bool, error) {
	n, err := redis.Uint64(e.do(ctx, "HGET", e.keys(bucket, key)[0], "r"))
	if errors.Is(err, redis.ErrNil) {
		return 0, false, nil
	}
	return n, err == nil, err
}

func revisionText(revision *uint64) string {
	if revision == nil {
		return ""
	}
	return strconv.FormatUint(*revision, 10)
}

// Set writes a key.
func (e *redisEngine) Set(ctx context.Context, bucket, key string, value []byte, o capability.SetOptions) (uint64, error) {
	ms := int64(o.TTL / time.Millisecond)
	if o.TTL%time.Millisecond > 0 {
		ms++
	}
	text, err := e.run(ctx, redisSet, bucket, key, value, ms, revisionText(o.IfRevision))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(text, 10, 64)
}

// Delete removes a key.
func (e *redisEngine) Delete(ctx context.Context, bucket, key string, ifRevision *uint64) (bool, error) {
	text, err := e.run(ctx, redisDelete, bucket, key, revisionText(ifRevision))
	return err == nil && text != "0", err
}

// Increment adds to a number.
func (e *redisEngine) Increment(ctx context.Context, bucket, key string, by int64) (int64, error) {
	text, err := e.run(ctx, redisIncrement, bucket, key, by)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// List returns a page of keys.
func (e *redisEngine) List(ctx context.Context, bucket, prefix, after string, limit int) ([]string, bool, error) {
	keys := e.keys(bucket, "")
	start, end := "["+from(prefix, after), "+"
	if behind := behind(prefix); behind != "" {
		end = "(" + behind
	}
	list, err := e.eval(ctx, redisList, keys, []any{"", keys[0], start, end, limit + 1})
	if err != nil {
		return nil, false, err
	}
	list, more := cut(list, limit)
	return list, more, nil
}

// behind returns the first text after all that begin with the prefix, or nothing where there is none.
func behind(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return string(b[:i+1])
		}
	}
	return ""
}
