"""Unit checks of the page's pure modules, run inside the page. Each answers nothing, or what is wrong."""

UNITS = {
    "frames are cut at any byte": """import('/dashboard/live.js').then(({ Frames }) => {
        const text = ': hello\\r\\nid: 7\\r\\nevent: snapshot\\ndata: {"a":\\ndata: 1}\\n\\nretry: 900\\nid\\ndata:x\\n\\nevent: lost\\n';
        const want = JSON.stringify([{ id: '7', event: 'snapshot', data: '{"a":\\n1}' }, { id: '', event: 'message', data: 'x' }]);
        for (let size = 1; size < text.length; size++) {
            const frames = new Frames();
            const found = [];
            for (let i = 0; i < text.length; i += size) found.push(...frames.push(text.slice(i, i + size)));
            if (JSON.stringify(found) !== want || frames.retryMs !== 900) return `${size}: ${JSON.stringify(found)}`;
        }
    })""",
    "a replay that began again ends the run": """import('/dashboard/bars.js').then(({ presentRun, indexAt }) => {
        const run = presentRun([3, 3, 2, 9, 8].map((t) => ({ t }))).map(({ t }) => t);
        const places = [1, 2, 2.5, 3, 9].map((t) => indexAt(run.map((t) => ({ t })), t));
        return String(run) === '2,3,3' && String(places) === '0,0,0,2,2' ? '' : `${run} ${places}`;
    })""",
    "an event that is no bar is none": """import('/dashboard/bars.js').then(({ barOf, signalOf }) => {
        const event_type = 'market_data_update';
        const none = [{}, { event_type }, { event_type, data: null }, { event_type, data: { close: 'x', timestamp: 1 } }];
        const hold = { event_type: 'trading_signal', data: { action: 'HOLD', timestamp: 1 } };
        return none.every((event) => barOf(event) === null) && signalOf(hold) === null ? '' : 'taken for a bar';
    })""",
    "axis ticks are bounded": """import('/dashboard/chart.js').then(({ ticks }) => {
        const cases = [[0, 1, 5], [599.99999999999, 600, 4], [-3, -3, 4], [0, 1e300, 3], [NaN, 1, 2], [1e15, 1e15 + 0.25, 9]];
        const bad = cases.filter(([low, high, wanted]) => ticks(low, high, wanted).length > 50);
        return String(ticks(0, 1, 5)) === '0,0.2,0.4,0.6000000000000001,0.8,1' && !bad.length ? '' : String(ticks(0, 1, 5));
    })""",
    "figures that are not known are dashes": """import('/dashboard/format.js').then((f) => {
        const got = [f.number(null), f.compact(NaN), f.price(undefined), f.duration(null), f.lifetime(null), f.clock('x'), f.date(9e15)];
        const life = [f.lifetime(-1), f.lifetime(0.02), f.lifetime(0.65), f.lifetime(1.94), f.lifetime(3649.9)];
        return got.every((word) => word === '–') && String(life) === 'expired,28 m,15 h,1.9 d,3,649 d' ? '' : `${got} ${life}`;
    })""",
    "a group's words and tone": """import('/dashboard/views/groups.js').then(({ groupWords, groupTone }) => {
        const group = (lag, lag_s, pending, dead_letters) => ({ lag, lag_s, pending, dead_letters });
        const cases = [group(0, 0, 0, 0), group(1500, 0.4, 0, 0), group(0, 90, 2, 0), group(1, 2, 0, 3)];
        const got = cases.map((one) => `${groupTone(one)} ${groupWords(one)}`).join('; ');
        return got === 'ok up to date; ok 1.5K behind, 0.4 s; warn 0 behind, 1 m 30 s; bad 1 behind, 2.0 s · 3 dead' ? '' : got;
    })""",
}
