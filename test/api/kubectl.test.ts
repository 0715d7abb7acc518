/** Real kubectl against the API: what it prints is what people see. Pods do not run here; see streams.test.ts. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { statSync } from 'node:fs';
import { KUBECTLS, type Result, ServedApi } from './kubectl.ts';

const WEBPOD = `
apiVersion: apps/v1
kind: Deployment
metadata: { name: webpod }
spec:
  replicas: 2
  selector: { matchLabels: { app: webpod } }
  template:
    metadata: { labels: { app: webpod } }
    spec:
      containers: [{ name: webpod, image: traefik/whoami, ports: [{ containerPort: 80 }] }]
---
apiVersion: v1
kind: Service
metadata: { name: webpod, labels: { tier: front } }
spec: { selector: { app: webpod }, ports: [{ port: 80, targetPort: 80 }], type: NodePort }
`;

const POOL = `
apiVersion: cilium.io/v2alpha1
kind: CiliumLoadBalancerIPPool
metadata: { name: pool }
spec: { blocks: [{ start: 192.0.2.10, stop: 192.0.2.20 }, { cidr: 198.51.100.0/24 }] }
`;

for (const version of KUBECTLS) {
  describe(`kubectl ${version}`, function () {
    this.timeout(120_000);
    let served: ServedApi;
    before(async () => {
      served = await ServedApi.start();
    });
    after(() => served.stop());

    const run = (line: string, input?: string): Promise<Result> => served.run(version, line.split(' '), { input });
    /** Runs to success. */
    const ok = async (line: string, input?: string): Promise<string> => {
      const { code, stdout, stderr } = await run(line, input);
      assert.equal(code, 0, `kubectl ${line}: ${stderr}`);
      return stdout;
    };

    it('finds the kinds and their short names', async () => {
      const kinds = await ok('api-resources');
      assert.match(kinds, /^services +svc +v1 +true +Service$/m);
      assert.match(kinds, /^deployments +deploy +apps\/v1 +true +Deployment$/m);
      assert.match(kinds, /^ippools +projectcalico.org\/v3 +false +IPPool$/m);
      assert.match(await ok('api-versions'), /^cilium.io\/v2alpha1$/m);
      assert.match(await ok('version'), /^Server Version: v1\.35\.0\+tunpath$/m);
      assert.match(await ok('cluster-info'), /control plane.* is running at/);
    });

    it('applies, sees no change, shows a difference, changes', async () => {
      const file = served.file('webpod.yaml', WEBPOD);
      assert.equal(await ok(`diff -f ${file}`).catch(() => 'differs'), 'differs');
      assert.equal(await ok(`apply -f ${file}`), 'deployment.apps/webpod created\nservice/webpod created\n');
      assert.equal(await ok(`apply -f ${file}`), 'deployment.apps/webpod unchanged\nservice/webpod unchanged\n');
      assert.equal(await ok(`diff -f ${file}`), '');
      const changed = served.file('changed.yaml', WEBPOD.replace('replicas: 2', 'replicas: 3'));
      const diff = await run(`diff -f ${changed}`);
      assert.equal(diff.code, 1, diff.stderr);
      assert.match(diff.stdout, /^- {2}replicas: 2\n\+ {2}replicas: 3$/m);
      assert.match(await ok(`apply -f ${changed}`), /^deployment.apps\/webpod configured\nservice\/webpod unchanged$/m);
      assert.match(
        await ok(`apply -f ${changed} --dry-run=server`),
        /^deployment.apps\/webpod unchanged \(server dry run\)$/m,
      );
    });

    it('prints tables with the columns of each kind', async () => {
      assert.match(await ok('get deploy'), /^NAME +READY +UP-TO-DATE +AVAILABLE +AGE\nwebpod +0\/3 +0 +0 +\d+s$/m);
      assert.match(
        await ok('get deploy -o wide'),
        /CONTAINERS +IMAGES +SELECTOR\n.* webpod +traefik\/whoami +app=webpod$/m,
      );
      const services = await ok('get svc');
      assert.match(services, /^kubernetes +ClusterIP +10\.96\.0\.1 +<none> +443\/TCP/m);
      assert.match(services, /^webpod +NodePort +10\.\d+\.\d+\.\d+ +<none> +80:3\d{4}\/TCP/m);
      assert.match(await ok('get svc --show-labels'), /LABELS\n[\s\S]*tier=front$/m);
      assert.match(await ok('get svc -A'), /^NAMESPACE +NAME/);
      assert.match(await ok('get svc -l tier=front -o name'), /^service\/webpod\n$/);
      assert.equal(await ok('get svc --field-selector metadata.name=kubernetes -o name'), 'service/kubernetes\n');
      assert.match(await ok('get all'), /^service\/webpod [\s\S]*^deployment.apps\/webpod /m);
      assert.equal(await ok('get svc webpod -o jsonpath={.spec.ports[0].targetPort}'), '80');
      assert.match(await ok('get svc --sort-by=.metadata.name'), /kubernetes[\s\S]*webpod/);
      assert.equal(await ok('get svc,ns --chunk-size=1 -o name').then(text => text.split('\n').length), 7);
    });

    it('a service keeps its address and port through apply and replace', async () => {
      const where = 'get svc webpod -o jsonpath={.spec.clusterIP}/{.spec.ports[0].nodePort}';
      const before = await ok(where);
      await ok(`replace -f ${served.file('service.yaml', WEBPOD.slice(WEBPOD.indexOf('---')))}`);
      assert.equal(await ok(where), before);
      const other = WEBPOD.slice(WEBPOD.indexOf('---')).replace(
        'type: NodePort',
        'type: NodePort, clusterIP: 10.96.7.7',
      );
      const refused = await run(`replace -f ${served.file('other.yaml', other)}`);
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, /spec.clusterIPs\[0\]: Invalid value: .*may not change once set/);
    });

    it('describes', async () => {
      assert.match(await ok('describe svc webpod'), /^TargetPort: +80\/TCP$/m);
      assert.match(await ok('describe deploy webpod'), /^StrategyType: +RollingUpdate$/m);
      assert.match(await ok('describe ns default'), /^Status: +Active$/m);
    });

    it('patches in three ways, labels, annotates, scales', async () => {
      await ok('patch svc webpod -p {"spec":{"ports":[{"port":80,"targetPort":8080}]}}');
      await ok('patch svc webpod --type merge -p {"metadata":{"labels":{"tier":"back"}}}');
      await ok('patch svc webpod --type json -p [{"op":"add","path":"/metadata/labels/z","value":"1"}]');
      assert.equal(
        await ok('get svc webpod -o jsonpath={.spec.ports[*].targetPort}/{.metadata.labels.tier}/{.metadata.labels.z}'),
        '8080/back/1',
      );
      const failed = await run(
        'patch svc webpod --type json -p [{"op":"test","path":"/metadata/labels/z","value":"2"}]',
      );
      assert.equal(failed.code, 1);
      await ok('label svc webpod z-');
      await ok('label svc webpod a=b');
      await ok('annotate svc webpod note=this');
      assert.equal(await ok('get svc webpod -o jsonpath={.metadata.labels.z}/{.metadata.annotations.note}'), '/this');
      assert.match(await ok('scale deploy webpod --replicas 5'), /scaled/);
      assert.equal(await ok('get deploy webpod -o jsonpath={.spec.replicas}'), '5');
      assert.match(await ok('set image deploy/webpod webpod=nginx:1.27'), /image updated/);
      assert.match(await ok('rollout restart deploy/webpod'), /restarted/);
    });

    it('applies on the server, and names the manager of a field in conflict', async () => {
      const file = served.file('webpod.yaml', WEBPOD);
      const refused = await run(`apply --server-side -f ${file}`);
      assert.equal(refused.code, 1);
      assert.match(refused.stderr, /Apply failed with \d conflict.*\.spec\.replicas|conflicts/);
      assert.match(await ok(`apply --server-side --force-conflicts -f ${file}`), /serverside-applied/);
      assert.match(await ok(`apply --server-side -f ${file}`), /serverside-applied/);
      assert.equal(await ok('get deploy webpod -o jsonpath={.spec.replicas}'), '2');
      const managers = await ok(
        'get deploy webpod --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}',
      );
      assert.match(managers, /\bkubectl\b/);
    });

    it('what a server-side manager no longer says goes away', async () => {
      const config = (data: string) =>
        `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"owned"},"data":${data}}`;
      await ok(`apply --server-side --field-manager one -f ${served.file('c.json', config('{"a":"1","b":"2"}'))}`);
      await ok(`apply --server-side --field-manager two -f ${served.file('c.json', config('{"c":"3"}'))}`);
      await ok(`apply --server-side --field-manager one -f ${served.file('c.json', config('{"a":"1"}'))}`);
      assert.equal(await ok('get cm owned -o jsonpath={.data}'), '{"a":"1","c":"3"}');
    });

    it('names unknown fields, and refuses wrong values with their place', async () => {
      const typo = WEBPOD.replace('replicas:', 'replcas:');
      const strict = await run('apply -f -', typo);
      assert.equal(strict.code, 1);
      assert.match(strict.stderr, /strict decoding error: unknown field "spec.replcas"/);
      const warned = await run('apply --validate=warn -f -', typo);
      assert.equal(warned.code, 0, warned.stderr);
      assert.match(warned.stderr, /^Warning: unknown field "spec.replcas"$/m);
      const wrong = await run(
        'apply -f -',
        WEBPOD.replace('targetPort: 80', 'targetPort: 70000').replace('name: webpod, labels', 'name: bad, labels'),
      );
      assert.equal(wrong.code, 1);
      assert.match(wrong.stderr, /Service "bad" is invalid: spec.ports\[0\].targetPort: Invalid value: 70000/);
      const selector = await run(
        'create -f -',
        WEBPOD.replace('app: webpod } }\n  template', 'app: other } }\n  template').replaceAll(
          'name: webpod }',
          'name: bad }',
        ),
      );
      assert.match(selector.stderr, /`selector` does not match template `labels`/);
    });

    it('explains fields', async () => {
      assert.match(await ok('explain service.spec.ports.targetPort'), /FIELD: targetPort <IntOrString>/);
      assert.match(await ok('explain deployment.spec.strategy'), /rollingUpdate/);
      assert.match(await ok('explain ippool.spec --api-version=projectcalico.org/v3'), /blockSize/);
    });

    it('kinds of Cilium and Calico, in each of their versions', async () => {
      assert.match(await ok('apply -f -', POOL), /created/);
      assert.match(await ok('apply -f -', POOL.replace('v2alpha1', 'v2')), /unchanged|configured/);
      assert.match(
        await ok('get ciliumloadbalancerippools'),
        /^NAME +DISABLED +CONFLICTING +IPS AVAILABLE +AGE\npool +false/m,
      );
      assert.equal(
        await ok('get ciliumloadbalancerippools.v2.cilium.io pool -o jsonpath={.apiVersion}'),
        'cilium.io/v2',
      );
      await ok(
        'create -f -',
        'apiVersion: crd.projectcalico.org/v1\nkind: IPPool\nmetadata: { name: p4 }\nspec: { cidr: 10.9.0.0/16, ipipMode: Always }',
      );
      assert.equal(
        await ok('get ippools.projectcalico.org p4 -o jsonpath={.apiVersion}/{.spec.blockSize}'),
        'projectcalico.org/v3/26',
      );
      assert.equal(
        await ok('get ippools.crd.projectcalico.org p4 -o jsonpath={.apiVersion}'),
        'crd.projectcalico.org/v1',
      );
      const wrong = await run(
        'create -f -',
        'apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: { name: p5 }\nspec: { cidr: 10.9.0.0/16, ipipMode: Sometimes }',
      );
      assert.match(wrong.stderr, /spec.ipipMode: /);
    });

    it('watches, and waits', async () => {
      const watch = served.spawn(version, ['get', 'cm', '-w', '-o', 'name']);
      let seen = '';
      watch.stdout!.on('data', chunk => (seen += chunk));
      try {
        await ok('create -f -', 'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: watched }');
        await ok('annotate cm watched n=1');
        const deadline = Date.now() + 20_000;
        while (!/watched\n[\s\S]*watched\n/.test(seen) && Date.now() < deadline)
          await new Promise(next => setTimeout(next, 20));
        assert.match(seen, /watched\n[\s\S]*watched\n/);
      } finally {
        watch.kill();
        await once(watch, 'close');
      }
      assert.match(await ok('wait --for=jsonpath={.status.phase}=Active ns/default'), /condition met/);
      const waiting = run('wait --for=delete cm/watched --timeout=30s');
      await ok('delete cm watched');
      assert.equal((await waiting).code, 0);
      const late = await run('wait --for=condition=Available deploy/webpod --timeout=1s');
      assert.equal(late.code, 1);
      assert.match(late.stderr, /timed out/);
    });

    it('edits, and replaces only what it has read', async () => {
      const editor = served.file('editor.sh', '#!/bin/sh\nsed -i s/tier:.front/tier:\\ edited/ "$1"\n');
      const { code, stderr } = await served.run(version, ['edit', 'svc', 'webpod'], {
        env: { KUBE_EDITOR: `sh ${editor}` },
      });
      assert.equal(code, 0, stderr);
      assert.equal(await ok('get svc webpod -o jsonpath={.metadata.labels.tier}'), 'edited');
      const old = await ok('get svc webpod -o json');
      await ok('label svc webpod later=yes');
      const stale = await run('replace -f -', old);
      assert.equal(stale.code, 1);
      assert.match(
        stale.stderr,
        /the object has been modified; please apply your changes to the latest version and try again/,
      );
    });

    it('creates with generated names, and not twice', async () => {
      const made = await ok(
        'create -f - -o name',
        'apiVersion: v1\nkind: ConfigMap\nmetadata: { generateName: made- }',
      );
      assert.match(made, /^configmap\/made-[a-z0-9]{5}\n$/);
      const twice = await run('create -f -', 'apiVersion: v1\nkind: Namespace\nmetadata: { name: default }');
      assert.match(twice.stderr, /namespaces "default" already exists/);
      const nowhere = await run(
        'create -f -',
        'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: a, namespace: nowhere }',
      );
      assert.match(nowhere.stderr, /namespaces "nowhere" not found/);
    });

    it('makes objects of its own', async () => {
      assert.match(await ok('create deployment made --image nginx --replicas 2 --port 80'), /created/);
      assert.equal(
        await ok(
          'get deploy made -o jsonpath={.spec.replicas}/{.spec.template.spec.containers[0].ports[0].containerPort}',
        ),
        '2/80',
      );
      assert.match(await ok('expose deploy made --port 80'), /exposed/);
      assert.match(await ok('create cm settings --from-literal a=b'), /created/);
      assert.equal(await ok('get cm settings -o jsonpath={.data.a}'), 'b');
      assert.match(await ok('create secret generic hidden --from-literal a=b'), /created/);
      assert.equal(await ok('get secret hidden -o jsonpath={.data.a}'), 'Yg==');
      assert.match(await ok('create svc loadbalancer lb --tcp=80:8080'), /created/);
      assert.match(await ok('create sa robot'), /created/);
      assert.match(await ok('create role reader --verb get --resource pods'), /created/);
      assert.match(await ok('create rolebinding reading --role reader --serviceaccount default:robot'), /created/);
      assert.match(await ok('run once --image busybox --restart Never -- sleep 1'), /created/);
      assert.equal(await ok('auth can-i create pods'), 'yes\n');
      assert.match(await ok('auth whoami'), /tunpath:admin/);
      assert.match(await ok('delete deploy,svc,cm,secret -l app=made'), /deleted/);
    });

    it('deletes', async () => {
      const dry = await ok('delete svc webpod --dry-run=server');
      assert.match(dry, /deleted/);
      await ok('get svc webpod');
      await ok(`delete -f ${served.file('webpod.yaml', WEBPOD)}`);
      assert.match((await run('get svc webpod')).stderr, /services "webpod" not found/);
      await ok('delete cm --all');
      assert.match((await run('get cm')).stderr, /No resources found/);
    });

    it('reads the API by hand, and dumps the cluster', async () => {
      assert.equal(await ok('get --raw /healthz'), 'ok');
      assert.match(await ok('get --raw /apis/apps/v1'), /"kind":"APIResourceList"/);
      assert.match(await ok('cluster-info dump'), /"kind": "ServiceList"/);
    });

    it('nobody gets in without the token, and the kubeconfig is its owner’s alone', async () => {
      assert.equal(statSync(served.kubeconfig).mode & 0o777, 0o600);
      const { code, stderr } = await run('get ns --token=wrong');
      assert.equal(code, 1);
      assert.match(stderr, /Unauthorized|must be logged in/);
    });
  });
}
