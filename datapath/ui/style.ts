/** How the page looks: light and dark, from a phone to a wide screen. */
export const STYLE = `
/* Registered, so that a script that draws reads a colour and not light-dark(). */
@property --flow { syntax: '<color>'; inherits: true; initial-value: black }
@property --reply { syntax: '<color>'; inherits: true; initial-value: black }
@property --bad { syntax: '<color>'; inherits: true; initial-value: black }
:root {
  color-scheme: light dark;
  --ground: light-dark(#f6f7f9, #14171c); --card: light-dark(#ffffff, #1c2027); --text: light-dark(#1b2430, #e4e8ee);
  --faint: light-dark(#566273, #9aa6b5); --line: light-dark(#d5dae1, #343b46); --accent: light-dark(#1259b5, #7db4ff);
  --on-accent: light-dark(#ffffff, #0c1a2e); --good: light-dark(#136b35, #6fd694); --warn: light-dark(#7d5400, #e8bd5b);
  --bad: light-dark(#b3261e, #ff8a80); --bad-ground: light-dark(#fdecea, #3b1d1c); --flow: light-dark(#1259b5, #7db4ff);
  --reply: light-dark(#137a5e, #5fd3b3); --node: light-dark(#eef4fc, #1f2a38); --pod: light-dark(#ffffff, #28323f);
  --host: light-dark(#e2e9f2, #2a3340); --bus: light-dark(#7b8aa0, #6d7b90); --chosen: light-dark(#fff3c9, #4a4015);
  --h-ethernet: light-dark(#e8e2f5, #3a3054); --h-ipv4: light-dark(#dcebfa, #1f3c5a); --h-udp: light-dark(#dcf3e4, #1e4630);
  --h-tcp: light-dark(#dcf3e4, #1e4630); --h-icmp: light-dark(#fbe7d4, #573a1c); --h-vxlan: light-dark(#fce3ee, #58263f);
  font: 15px/1.45 system-ui, sans-serif; background: var(--ground); color: var(--text);
}
:root[data-theme=light] { color-scheme: light } :root[data-theme=dark] { color-scheme: dark }
* { box-sizing: border-box }
body { margin: 0 }
h2 { font-size: 1.05rem; margin: 1.2rem 0 .5rem } h3 { font-size: .95rem; margin: .3rem 0 } h4 { font-size: .8rem; margin: .8rem 0 .3rem; color: var(--faint); font-weight: 600 }
a { color: var(--accent) } small, .faint { color: var(--faint) } .faint { font-size: .85rem }
.good { color: var(--good) } .warn { color: var(--warn) } .bad { color: var(--bad) }
code, .bytes, .time, input, textarea, .address, .pod-address { font-family: ui-monospace, "Cascadia Mono", "DejaVu Sans Mono", monospace; font-size: .85em }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
.top { display: flex; align-items: center; gap: 1rem; padding: .5rem 1.2rem; background: var(--card); border-bottom: 1px solid var(--line); position: sticky; top: 0; z-index: 3 }
.brand { font-weight: 700; font-size: 1.1rem; text-decoration: none; color: var(--text); letter-spacing: -.01em }
.top nav { display: flex; gap: .15rem; overflow-x: auto; flex: 1; scrollbar-width: none }
.top nav a { padding: .35rem .7rem; border-radius: 7px; text-decoration: none; color: var(--text); white-space: nowrap }
.top nav a:hover { background: var(--ground) } .top nav a[aria-current] { background: var(--accent); color: var(--on-accent) }
main, .opening, .trouble { max-width: 1280px; margin: 0 auto; padding: 1rem 1.2rem }
.opening { padding-bottom: 0 }
button, input, select, textarea { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 7px; padding: .35rem .7rem; max-width: 100% }
button { cursor: pointer } button:hover:not(:disabled) { border-color: var(--accent) } button:disabled { opacity: .55; cursor: default }
button.primary, button[aria-pressed=true] { background: var(--accent); border-color: var(--accent); color: var(--on-accent) }
button.theme { padding: .2rem .55rem; font-size: 1rem; line-height: 1.3 }
.bar { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin-bottom: .6rem } .bar p { margin: 0 }
.bar label { display: flex; align-items: center; gap: .5rem } .grow { flex: 1 1 14rem; min-width: 0 } .bar .grow input { flex: 1; min-width: 0 }
.trouble { background: var(--bad-ground); color: var(--bad); border-radius: 8px; white-space: pre-wrap; padding: .7rem 1rem; margin: .8rem auto }
.empty { color: var(--faint) }
.network, .flows, .detail, .walk, .outcome, .form, fieldset { background: var(--card); border: 1px solid var(--line); border-radius: 12px }
.network { padding: 14px; overflow: hidden } .picture { position: relative; margin-top: 10px } .picture canvas { position: absolute; inset: 0; pointer-events: none } .picture svg { display: block; user-select: none }
.services { display: flex; flex-wrap: wrap; gap: 8px; justify-content: center } .service { border-radius: 99px; font-size: .85rem; padding: .2rem .8rem }
.service.chosen small { color: inherit }
svg text { fill: var(--text); font-size: 13px } svg .wire { fill: none; stroke: var(--line); stroke-width: 2 } svg .bus { fill: var(--bus) } svg .bus-name { fill: var(--faint); font-size: 12px }
svg .outside { fill: var(--ground); stroke: var(--line) } svg .outside-name { text-anchor: middle; fill: var(--faint) }
svg .node { fill: var(--node); stroke: var(--line) } svg .node.chosen { stroke: var(--accent); stroke-width: 2.5 } svg .hit { fill: transparent }
svg [role=button] { cursor: pointer } svg [role=button]:focus-visible { outline: none } svg [role=button]:focus-visible rect { stroke: var(--accent); stroke-width: 2.5 }
svg .name { font-weight: 650; font-size: 14px } svg .address, svg .pod-address { fill: var(--faint); font-size: 12px } svg .mode { text-anchor: end; font-weight: 600; fill: var(--accent) } svg .end { text-anchor: end }
svg .pod rect { fill: var(--pod); stroke: var(--line) } svg .pod-name { font-size: 12.5px } svg .pod:hover rect { stroke: var(--accent) }
svg .pod.chosen rect { fill: var(--chosen); stroke: var(--accent); stroke-width: 2 } svg .pod.backend rect { stroke: var(--good); stroke-width: 2.5 }
svg .host rect { fill: var(--host); stroke: none } svg .host .pod-address { font-size: 11.5px }
.detail { padding: .4rem 1rem .9rem; margin-top: 1rem } .detail dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: .3rem 1.5rem; margin: .4rem 0 .8rem } .detail dt { color: var(--faint); font-size: .8rem } .detail dd { margin: 0; overflow-wrap: anywhere }
.flows { margin-top: 1rem; padding: .8rem } .flows .bar { margin-bottom: .4rem }
.rows { height: 420px; overflow: auto; border: 1px solid var(--line); border-radius: 8px; position: relative; background: var(--card) }
.rows-space { position: relative } .row { display: flex; gap: .8rem; align-items: center; height: 30px; padding: 0 .7rem; width: 100%; border-bottom: 1px solid color-mix(in srgb, var(--line) 45%, transparent); cursor: pointer; font-size: .88rem }
.rows-space .row { position: absolute } .row.head { position: sticky; top: 0; background: var(--card); z-index: 1; color: var(--faint); font-size: .78rem; cursor: default } .row.empty { position: static; height: auto; padding: 1rem; cursor: default }
.row:not(.head):not(.empty):hover { background: var(--ground) } .rows:focus-visible .row.active { box-shadow: inset 3px 0 var(--accent) } .row.selected { background: var(--chosen) }
.row span { white-space: nowrap; overflow: hidden; text-overflow: ellipsis } .row.empty span { white-space: normal }
.row .time { width: 6.8rem; flex: none } .row .end { flex: 1 1 8rem; min-width: 0 } .row .proto { width: 3.2rem; flex: none } .row .verdict { flex: 0 1 13rem; min-width: 5.2rem } .row .n { width: 4rem; text-align: right; flex: none } .row .where { width: 13rem; flex: none } .row .reason-cell { flex: 0 1 12rem; min-width: 3rem }
.row.dropped .verdict, .row.dropped .reason-cell { color: var(--bad); font-weight: 600 }
.split { display: grid; gap: 1rem } .packets .rows { height: 340px } .packets .detail { margin: 0 }
.layers { list-style: none; padding: 0; margin: .5rem 0 } .layers button { width: 100%; text-align: left; border: none; border-radius: 6px; padding: .25rem .5rem; overflow-wrap: anywhere } .layers button[aria-pressed=true] { background: var(--chosen); color: inherit }
.layers b, .bytes b { border-radius: 3px } .layers b { padding: .05rem .4rem; font-weight: 600 }
.bytes { overflow-x: auto; line-height: 1.75; white-space: nowrap } .bytes i { font-style: normal; color: var(--faint); margin-right: .8rem } .bytes b { font-weight: 400; padding: .12em .22em }
.ethernet { background: var(--h-ethernet) } .ipv4 { background: var(--h-ipv4) } .udp { background: var(--h-udp) } .tcp { background: var(--h-tcp) } .icmp { background: var(--h-icmp) } .vxlan, .geneve { background: var(--h-vxlan) }
.bytes b.changed { background: var(--bad); color: var(--card); font-weight: 700 } .bytes b.chosen { box-shadow: inset 0 -2px var(--accent) }
.form { display: flex; flex-wrap: wrap; gap: .7rem; align-items: end; padding: .9rem } .form label { display: grid; gap: .2rem; flex: 1 1 13rem; font-size: .82rem; color: var(--faint) } .form label.small { flex: 0 1 7.5rem } .form label.choice { flex: 0 1 11rem } .form label.check, .bar .check { display: flex; flex: none; gap: .4rem; align-items: center; padding-bottom: .4rem } .bar .check { padding: 0 }
.form input:not([type=checkbox]), .form select { color: var(--text); width: 100% } .form p { margin: 0 }
.outcome { padding: .8rem 1rem; margin-top: 1rem; border-left: 5px solid currentColor } .outcome .reason { color: var(--text) }
.reason { display: grid; grid-template-columns: 6.5rem 1fr; gap: .15rem .8rem; margin: .5rem 0 } .reason dt { color: var(--faint) } .reason dt:first-child { grid-column: 1 / -1; font-weight: 600 } .reason dd { margin: 0; overflow-wrap: anywhere } .reason dd:nth-of-type(1) { grid-column: 1 / -1 }
.reasons { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 380px), 1fr)); gap: .8rem } .reasons > div { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: .2rem .9rem; scroll-margin-top: 4rem } .reasons > .chosen { border-color: var(--accent); background: var(--chosen) }
.walk { display: grid; grid-template-columns: minmax(260px, 5fr) 7fr; margin-top: 1rem; overflow: hidden }
.steps { list-style: none; margin: 0; padding: .5rem; border-right: 1px solid var(--line); max-height: 640px; overflow-y: auto }
.steps .node-name { font-size: .78rem; color: var(--faint); padding: .7rem .6rem .2rem; font-weight: 600 }
.steps button { display: grid; width: 100%; text-align: left; border: none; border-left: 3px solid var(--line); border-radius: 0 7px 7px 0; padding: .25rem .7rem } .steps button span { font-size: .82rem; color: var(--faint); overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.steps li.changes button { border-left-color: var(--warn) } .steps li.drop button { border-left-color: var(--bad) } .steps li.drop b { color: var(--bad) } .steps li[aria-current] button { background: var(--node); border-left-color: var(--accent) }
.moment { padding: .8rem 1rem; min-width: 0 } .moment-head { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center } .moment-head h3 { flex: 1 1 12rem } .moment-head span { color: var(--faint); font-size: .85rem } .moment > p { overflow-wrap: anywhere }
.changed-fields { margin: .4rem 0; padding-left: 1.1rem } .changed-fields li { overflow-wrap: anywhere } .compared { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 0 1.2rem } .compared > div { min-width: 0 }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .88rem; background: var(--card) } th { text-align: left; color: var(--faint); font-weight: 600; font-size: .78rem } th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top } .n { text-align: right; font-variant-numeric: tabular-nums } .nowrap { white-space: nowrap }
.fills { display: flex; flex-wrap: wrap; gap: .4rem 1.5rem; margin: .6rem 0; font-size: .85rem }
fieldset { display: flex; flex-wrap: wrap; gap: .6rem; align-items: end; margin: 0 0 .9rem; padding: .6rem 1rem 1rem; min-width: 0 } legend { font-weight: 600; padding: 0 .4rem } .block { display: block; width: 100% } textarea { font-family: ui-monospace, monospace; font-size: .85rem; width: 100%; display: block; margin-top: .3rem }
@media (max-width: 760px) {
  .top { flex-wrap: wrap; gap: .4rem .8rem; padding: .5rem .8rem } .top nav { order: 3; flex: 1 0 100% } .top .brand { flex: 1 }
  main, .opening { padding: .7rem .7rem } .wide { display: none } .row { gap: .5rem; padding: 0 .5rem } .row .where { width: 7.2rem } .row .end { flex-basis: 6rem } .row .verdict { flex: 0 0 6rem }
  .walk { grid-template-columns: 1fr } .steps { border-right: none; border-bottom: 1px solid var(--line); max-height: 260px } .network { padding: 8px } .network, .flows { border-radius: 9px }
}
@media (prefers-reduced-motion: no-preference) { html { scroll-behavior: smooth } }
`;
