package preflight

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"

	"github.com/airflow-requeue/airflow-requeue/pkg/requeue"
	"github.com/airflow-requeue/airflow-requeue/pkg/tidb"
)

// What a watcher can't do its work without.

func (c *checker) signingKeys(context.Context) Finding {
	keys, err := c.Keys()
	if err != nil {
		toDo := "make the Secret with the signing keys, and mount it where --signing-keys-dir says (manifests/README.md, Keys of your own)"
		if c.KeysSecret != "" {
			toDo = "make Secret " + c.KeysSecret + " as manifests/base/signing-keys.yaml does, without data, and mount it where --signing-keys-dir says: " +
				"a watcher that starts fills it, and the kubelet brings that to its pods within about a minute"
		}
		return fail(toDo, "%v", err)
	}
	return ok("%s, %s signs", count(len(keys.Secrets), "key"), keys.Current)
}

// database reads a row that is not there: that the tables can be seen does not say that they may be read.
func (c *checker) database(ctx context.Context) Finding {
	bad := func(err error) Finding {
		return fail("the connection URL, from "+c.databaseSource()+", is to name the metadata database that Airflow's scheduler uses, "+
			"and a user who has SELECT on task_instance and alembic_version", "%v", err)
	}
	url, err := c.Database.URL()
	if err != nil {
		return bad(err)
	}
	db, err := tidb.Open(ctx, url)
	if err != nil {
		return bad(err)
	}
	defer db.Close()
	nobody := requeue.Ref{Key: requeue.Key{DagID: "airflow-requeue", TaskID: "check", RunID: "check", MapIndex: -1}}
	if _, err := db.Lookup(ctx, []requeue.Ref{nobody}); err != nil {
		return bad(err)
	}
	return ok("%s", strings.Join(append([]string{db.Schema().String()}, db.Schema().Warnings...), "; "))
}

func (c *checker) databaseSource() string {
	if c.Database.File != "" {
		return "--database-url-file=" + c.Database.File
	}
	return "--database-url-env=" + c.Database.Env
}

// oldestMinor is of the first Kubernetes 1.x that keeps a pod with a scheduling gate from running, by default.
const oldestMinor = 27

func (c *checker) server(ctx context.Context) Finding {
	raw, err := c.client.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Raw()
	var info version.Info
	if err == nil {
		err = json.Unmarshal(raw, &info)
	}
	if err != nil {
		return fail("see whether the API server can be reached from here, and whether the account's token or --kubeconfig is good; "+
			"what needs it was not looked at", "%v", err)
	}
	who, err := c.client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err == nil { // servers before 1.28 do not say
		c.user = who.Status.UserInfo.Username
	}
	return judgeServer(info, c.user)
}

func judgeServer(info version.Info, user string) Finding {
	minor, err := strconv.Atoi(strings.TrimRight(info.Minor, "+"))
	if err == nil && info.Major == "1" && minor < oldestMinor {
		return fail(fmt.Sprintf("upgrade Kubernetes to 1.%d or later: without scheduling gates a replacement may run too early", oldestMinor),
			"%s is too old", info.GitVersion)
	}
	if user == "" {
		return ok("%s", info.GitVersion)
	}
	return ok("%s, as %s", info.GitVersion, user)
}

// Right is what may be done with one kind of objects, or with one object.
type Right struct {
	Verbs                        []string
	Group, Resource, Subresource string
	Namespace                    string
	Name                         string
}

// Rights are what a watcher asks of the API server, as manifests/base/watcher-rights.yaml grants it; but for that to read the
// webhook configuration, which nothing but a check needs.
func Rights(o Options) []Right {
	var all []Right
	for _, namespace := range o.Namespaces {
		all = append(all,
			Right{Verbs: []string{"get", "list", "watch", "create", "patch", "delete"}, Resource: "pods", Namespace: namespace},
			Right{Verbs: []string{"patch"}, Resource: "pods", Subresource: "status", Namespace: namespace},
			Right{Verbs: []string{"stamp"}, Group: "airflow-requeue.dev", Resource: "pods", Namespace: namespace}, // the policy asks for it
			Right{Verbs: []string{"create"}, Group: "events.k8s.io", Resource: "events", Namespace: namespace},
			Right{Verbs: []string{"list", "watch"}, Resource: "namespaces", Name: namespace})
	}
	if o.KeysSecret != "" {
		all = append(all, Right{Verbs: []string{"get", "patch"}, Resource: "secrets", Namespace: o.Lease.Namespace, Name: o.KeysSecret})
		if !slices.Contains(o.Namespaces, o.Lease.Namespace) { // the readers' pods
			all = append(all, Right{Verbs: []string{"list"}, Resource: "pods", Namespace: o.Lease.Namespace})
		}
	}
	all = append(all, Right{Verbs: []string{"create"}, Group: "coordination.k8s.io", Resource: "leases", Namespace: o.Lease.Namespace})
	for shard := range o.shards() { // the watchers of all shards have one account: the webhook knows no other
		all = append(all, Right{Verbs: []string{"get", "update"}, Group: "coordination.k8s.io", Resource: "leases", Namespace: o.Lease.Namespace,
			Name: requeue.LeaseOf(o.Lease.Name, shard, o.shards())})
	}
	return all
}

func (r Right) String() string {
	what := strings.Join(r.Verbs, ",") + " " + r.Resource
	for _, part := range [][2]string{{".", r.Group}, {"/", r.Subresource}, {"/", r.Name}, {" -n ", r.Namespace}} {
		if part[1] != "" {
			what += part[0] + part[1]
		}
	}
	return what
}

func (c *checker) rights(ctx context.Context) Finding {
	var missing []string
	for _, right := range Rights(c.Options) {
		var verbs []string
		for _, verb := range right.Verbs {
			review, err := c.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: verb, Group: right.Group,
					Resource: right.Resource, Subresource: right.Subresource, Namespace: right.Namespace, Name: right.Name}}}, metav1.CreateOptions{})
			if err != nil {
				return fail("let the account ask for its own rights: ClusterRole system:basic-user grants that to all", "asking for them: %v", err)
			}
			if !review.Status.Allowed {
				verbs = append(verbs, verb)
			}
		}
		if right.Verbs = verbs; len(verbs) > 0 {
			missing = append(missing, right.String())
		}
	}
	if c.lacks = len(missing) > 0; c.lacks {
		return fail("grant them to "+cmp.Or(c.user, "the watcher's account")+", as manifests/base/watcher-rights.yaml does",
			"missing: %s", strings.Join(missing, "; "))
	}
	return ok("all that a watcher needs")
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
